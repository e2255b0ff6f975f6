//! What typed columns say.
