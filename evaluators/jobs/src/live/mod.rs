//! Rules on live traffic.
