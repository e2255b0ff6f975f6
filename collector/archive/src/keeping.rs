//! Where files lie, and which of them count.
