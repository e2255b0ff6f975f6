//! The recorder over a real log and real databases.
