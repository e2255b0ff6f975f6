//! `[archive]`: where spans are laid down for good, and for how long.

use std::time::Duration;

use emberd_archive::keeping::place::Url as Place;

use super::document::Found;
use super::reader::Reader;
use super::secret::Secret;
use super::units::{ByteSize, FromValue, text};

/// `[archive]`.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Whether spans are archived at all.
    pub enabled: bool,
    /// Where to.
    pub place: Place,
    /// How a bucket is reached.
    pub bucket: Bucket,
    /// How long a span waits for others before a file is written.
    pub every: Duration,
    /// How long it is kept, by the day of its start; zero: for ever.
    pub keep: Duration,
    /// How many bytes are kept; none: any number.
    pub budget: Option<ByteSize>,
    /// How large files become.
    pub file: ByteSize,
}

/// What a bucket asks for.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// The server's URL; none: Amazon's own.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The id of the access key, and its secret; none: the machine's own role.
    pub keys: Option<(String, Secret)>,
    /// Whether the bucket's name stands in the host's name.
    pub virtual_hosted: bool,
    /// Whether the server knows `If-None-Match`.
    pub conditional: bool,
}

const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn archive(reader: &mut Reader) -> Archive {
    let mut section = reader.section("archive");
    let place = section.value("url", Where(Place::Directory)).0;
    let endpoint = section.value::<Option<reqwest::Url>>("endpoint", None);
    let region = section.value_or("region", "AWS_REGION", "us-east-1".to_owned());
    let id = section.value_or::<Option<String>>("access_key_id", "AWS_ACCESS_KEY_ID", None);
    let secret = section.secret("secret_access_key_file", "AWS_SECRET_ACCESS_KEY");
    let is_bucket = matches!(place, Place::Bucket { .. });
    let is_whole = !is_bucket || id.is_some() == secret.is_some();
    section.check(
        "secret_access_key_file",
        is_whole,
        "access_key_id and secret_access_key_file go together: set both, or neither",
    );
    let archive = Archive {
        enabled: section.value("enabled", true),
        place,
        bucket: Bucket {
            endpoint: endpoint.map(|url| url.as_str().trim_end_matches('/').to_owned()),
            region,
            keys: id.zip(secret),
            virtual_hosted: section.value("virtual_hosted", false),
            conditional: section.value("conditional", true),
        },
        every: section.value("every", Duration::from_secs(60)),
        keep: section.value("keep", Duration::ZERO),
        budget: section.value("budget", None),
        file: section.value("file", ByteSize(24 << 20)),
    };
    if !is_bucket && archive.bucket.endpoint.is_some() {
        section.warn("endpoint", "means nothing without url = \"s3://..\"");
    }
    section.check("every", (Duration::from_secs(1)..=DAY).contains(&archive.every), "must be from 1s to 24h");
    section.check(
        "keep",
        archive.keep.is_zero() || archive.keep >= DAY,
        "less than a day: the archive is kept by days",
    );
    section.check("file", (1 << 20..=256 << 20).contains(&archive.file.0), "must be from 1MiB to 256MiB");
    section.finish();
    archive
}

#[derive(PartialEq)]
struct Where(Place);

impl FromValue for Where {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "\"file\" or \"s3://bucket/prefix\"";
        let text = text(&found.value, FORM)?;
        text.parse().map(Self).map_err(|error| format!("expected {FORM}: {error}"))
    }
}
