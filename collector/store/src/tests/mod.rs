//! One suite, asked of both databases: `sqlite::NAME` and `postgres::NAME` are the same test.
//!
//! - `harness`: a fresh database for each. `spans`: traces as an SDK would send them. `oracle`: what must hold, worked out from the rows.

mod analytics;
mod any_order;
mod cost;
mod erasing;
mod examine;
mod faults;
mod harness;
mod jobs;
mod jobs_beside;
mod jobs_random;
mod jobs_ranges;
mod ledger;
mod once;
mod oracle;
mod people;
mod prompts;
mod publishing;
mod reads;
mod recording;
mod recount;
mod retention;
mod rights;
mod schema;
mod spans;
mod told;

/// Makes of each `async fn name(db: Db)` a test for either database.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { crate::tests::harness::on_sqlite(super::$name); })+
        }
        mod postgres {
            $(#[test] fn $name() { crate::tests::harness::on_postgres(super::$name); })+
        }
    };
}
pub(crate) use on_both;
