//! Cursors that only emberd can make: the place where a page ended, signed for one list and one caller.
//!
//! Promise: a cursor that was changed, or that another caller or another list was given, is refused; one from another emberd on the same
//! database, or from before a restart, is not. The key lies in the database (`emberd.secrets`, made by the migration): a shared secret
//! need not be configured, and a key in the data directory would be another one in each emberd.
//! On the wire: `PLACE.MAC`, 32 hex digits of HMAC-SHA-256 over the list's path, the caller's id and the place.
//! Not here: cursors of `/graphql`, which are places alone: what they lead to is read with the caller's rights all the same.
//! Kept by: `tests::cursors`.

use emberd_store::library::Page;
use ring::hmac;
use uuid::Uuid;

use crate::Shared;
use crate::refusal::Refusal;

const MAC_BYTES: usize = 16;

/// What a list was asked for: so many rows, and where to go on.
pub(crate) struct Listing {
    pub(crate) limit: u32,
    pub(crate) given: Option<String>,
    /// The path of the list.
    pub(crate) list: String,
    /// Who asks; nobody in particular where everyone is the administrator.
    pub(crate) caller: Uuid,
}

/// The same, its cursor believed.
pub(crate) struct Place {
    pub(crate) limit: u32,
    after: Option<String>,
    key: hmac::Key,
    about: Vec<u8>,
}

impl Listing {
    /// Believes the cursor, or refuses it.
    pub(crate) async fn open(self, shared: &Shared) -> Result<Place, Refusal> {
        let key = shared.cursor_key.get_or_try_init(|| key(shared)).await?.clone();
        let about = [self.list.as_bytes(), b"\0", self.caller.as_bytes(), b"\0"].concat();
        let mut place = Place { limit: self.limit, after: None, key, about };
        if let Some(given) = self.given {
            let believed = given.rsplit_once('.').filter(|(after, mac)| place.mac(after) == *mac);
            let (after, _) = believed.ok_or_else(|| Refusal::invalid("cursor", "not a cursor of this list"))?;
            place.after = Some(after.to_owned());
        }
        Ok(place)
    }
}

async fn key(shared: &Shared) -> Result<hmac::Key, Refusal> {
    let secret = shared.store.secret("cursors").await?.ok_or(Refusal::Broken("the database has no key for cursors"))?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

impl Place {
    /// Where the list goes on.
    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// A page, its cursor signed.
    pub(crate) fn page<T>(&self, page: Page<T>) -> Page<T> {
        let next_cursor = page.next_cursor.map(|next| format!("{next}.{}", self.mac(&next)));
        Page { data: page.data, next_cursor }
    }

    fn mac(&self, after: &str) -> String {
        let tag = hmac::sign(&self.key, &[&self.about, after.as_bytes()].concat());
        tag.as_ref().iter().take(MAC_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}
