//! Two arms over the same examples.
