//! Lists under many prompts, read in one statement.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::dataloader::Loader;
use emberd_store::Store;
use emberd_store::jobs::Evaluation;
use emberd_store::library::{OfPrompts, Trace};
use uuid::Uuid;

/// What is read of a prompt: the newest, so many, of this status.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Newest {
    pub(crate) prompt: Uuid,
    pub(crate) status: Option<String>,
    pub(crate) session: Option<Uuid>,
    pub(crate) first: u32,
}

/// Groups what can be read in one statement: equal but for the prompt.
fn alike(keys: &[Newest]) -> HashMap<Newest, Vec<Uuid>> {
    let mut groups = HashMap::<Newest, Vec<Uuid>>::new();
    for key in keys {
        groups.entry(Newest { prompt: Uuid::nil(), ..key.clone() }).or_default().push(key.prompt);
    }
    groups
}

macro_rules! loader {
    ($loader:ident, $row:ty, $read:ident) => {
        pub(crate) struct $loader(pub(crate) Store);

        impl Loader<Newest> for $loader {
            type Value = Vec<Arc<$row>>;
            type Error = Arc<emberd_store::Error>;

            async fn load(&self, keys: &[Newest]) -> Result<HashMap<Newest, Self::Value>, Self::Error> {
                let mut found: HashMap<Newest, Self::Value> =
                    keys.iter().map(|key| (key.clone(), Vec::new())).collect();
                for (like, prompts) in alike(keys) {
                    let asked =
                        OfPrompts { prompts, status: like.status.clone(), session: like.session, first: like.first };
                    for row in self.0.$read(&asked).await.map_err(Arc::new)? {
                        let key = Newest { prompt: row.prompt_id, ..like.clone() };
                        found.entry(key).or_default().push(Arc::new(row));
                    }
                }
                Ok(found)
            }
        }
    };
}

loader!(EvaluationsOf, Evaluation, evaluations_of);
loader!(TracesOf, Trace, traces_of);
