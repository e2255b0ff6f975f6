//! SIGHUP: what is taken up without a restart, by senders and callers who notice nothing of it; and what a broken configuration does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use super::app::secret_file;
use super::process::{Emberd, Home, PATIENCE, wait_for};
use super::redis::signed;
use super::sink;

/// Signals, and waits until it has read everything; what it said about it.
fn reloads(emberd: &Emberd) -> String {
    let before = emberd.said().len();
    emberd.signal("HUP");
    let ended = |said: &str| said.contains("reload: done") || said.contains("reload: nothing was changed");
    wait_for("the reload ends", || Some(emberd.said()[before..].to_owned()).filter(|said| ended(said)))
}

fn keys(second: &str) -> String {
    format!(
        "[[key]]\nname = \"first\"\nkey = \"key-one\"\n[[key]]\nname = \"second\"\nkey = \"{second}\"\nrate = 100000\n"
    )
}

/// Written beside and renamed, as one does with a file that others read.
fn write_keys(home: &Home, text: &str) {
    let new = secret_file(home, "keys.new", text);
    std::fs::rename(new, home.path().join("keys")).unwrap();
}

async fn send(http: &reqwest::Client, url: &str, key: &str, trace: u64) -> u16 {
    let body = sink::request(None, vec![sink::span(trace, 0)]);
    let request = http.post(url).header("content-type", "application/x-protobuf").header("x-api-key", key).body(body);
    request.send().await.map_or(0, |answer| answer.status().as_u16())
}

/// One key is rotated again and again while another sends: none of the other's requests is refused, the new one counts at once and the
/// old one no more. A file of keys that is broken, and one that is gone, change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_under_load() {
    let home = Home::new();
    home.configure("[intake]\nkeys_file = \"keys\"\n");
    write_keys(&home, &keys("two-0"));
    let emberd = home.start();
    let (stop, url, http) = (Arc::new(AtomicBool::new(false)), emberd.http(), reqwest::Client::new());
    let mut senders = JoinSet::new();
    for task in 0..3_u64 {
        let (stop, url, http) = (stop.clone(), url.clone(), http.clone());
        senders.spawn(async move {
            let mut answers = Vec::new();
            for nth in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                answers.push(send(&http, &url, "key-one", task << 20 | nth).await);
            }
            answers
        });
    }
    for n in 1..=5_u64 {
        let (old, new) = (format!("two-{}", n - 1), format!("two-{n}"));
        assert_eq!(send(&http, &url, &old, n << 30).await, 200);
        write_keys(&home, &keys(&new));
        let said = tokio::task::block_in_place(|| reloads(&emberd));
        assert!(said.contains("[intake] keys_file: what it holds changed") && !said.contains("two-"), "{said}");
        assert_eq!(send(&http, &url, &new, n << 31).await, 200);
        assert_eq!(send(&http, &url, &old, n << 32).await, 401);
        // What is no file of keys counts for nothing.
        write_keys(&home, "[[key]]\nname = \"first\"\nkey = key-one\n");
        let said = tokio::task::block_in_place(|| reloads(&emberd));
        assert!(said.contains("nothing was changed") && !said.contains("key-one"), "{said}");
        std::fs::remove_file(home.path().join("keys")).unwrap();
        let said = tokio::task::block_in_place(|| reloads(&emberd));
        assert!(said.contains("[intake] keys_file: ") && said.contains("nothing was changed"), "{said}");
        assert_eq!(send(&http, &url, &new, n << 33).await, 200);
        assert_eq!(send(&http, &url, &old, n << 34).await, 401);
    }
    // Doors that ask for keys go on asking.
    home.configure("[log]\nkeep = \"1h\"\n");
    let said = tokio::task::block_in_place(|| reloads(&emberd));
    assert!(said.contains("[intake] keys_file: \"keys\" -> (default): needs a restart"), "{said}");
    assert!(said.contains("[log] keep: (default) -> \"1h\": needs a restart"), "{said}");
    assert_eq!(send(&http, &url, "no-key", 1 << 35).await, 401);
    stop.store(true, Ordering::SeqCst);
    let mut answers = Vec::new();
    while let Some(done) = senders.join_next().await {
        answers.extend(done.unwrap());
    }
    assert!(answers.len() > 30, "{}", answers.len());
    assert!(answers.iter().all(|answer| *answer == 200), "{answers:?}");
}

async fn status(emberd: &Emberd, path: &str, token: &str) -> u16 {
    let request = reqwest::Client::new().get(format!("{}{path}", emberd.api())).bearer_auth(token).timeout(PATIENCE);
    request.send().await.unwrap().status().as_u16()
}

/// Flags, secret, pace and pages are taken up; a file with mistakes changes nothing, and all of them are named with their lines.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_takes_up_what_changed() {
    const OLD: &str = "the old secret of more than thirty-two bytes";
    const NEW: &str = "the new secret of more than thirty-two bytes";
    let home = Home::new();
    secret_file(&home, "jwt", OLD);
    let identity = "[identity]\njwt_secret_file = \"jwt\"\n";
    home.configure(identity);
    let emberd = home.start();
    let (old, new) = (signed(OLD, 1), signed(NEW, 1));
    assert_eq!(
        (status(&emberd, "/api/evaluations", &old).await, status(&emberd, "/api/evaluations", &new).await),
        (200, 401)
    );

    home.configure(&format!("{identity}[flags]\nevaluations = false\n[log]\nkeeep = \"1h\"\n[api]\nrate = \"many\"\n"));
    let said = tokio::task::block_in_place(|| reloads(&emberd));
    assert!(
        said.contains("emberd.toml:6: [log]: unknown key `keeep`") && said.contains("emberd.toml:8: [api] rate: "),
        "{said}"
    );
    assert!(said.contains("nothing was changed: 2 mistakes"), "{said}");
    assert_eq!(status(&emberd, "/api/evaluations", &old).await, 200);

    secret_file(&home, "jwt", NEW);
    home.configure(&format!(
        "{identity}[flags]\ntraces = false\n[log]\nkeep = \"1h\"\n[api]\nrate = 1\nburst = 5\ncors = [\"https://app.example\"]\n"
    ));
    let said = tokio::task::block_in_place(|| reloads(&emberd));
    for part in [
        "[identity] jwt_secret_file: what it holds changed",
        "[flags] traces: (default) -> false",
        "[api] rate: (default) -> 1",
        "[log] keep: (default) -> \"1h\": needs a restart",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains(NEW) && !said.contains(OLD), "{said}");
    assert_eq!(
        (status(&emberd, "/api/evaluations", &old).await, status(&emberd, "/api/evaluations", &new).await),
        (401, 200)
    );
    assert_eq!(status(&emberd, "/api/traces", &new).await, 404);
    let page = reqwest::Client::new().get(format!("{}/healthz", emberd.api())).header("origin", "https://app.example");
    assert_eq!(page.send().await.unwrap().headers()["access-control-allow-origin"], "https://app.example");
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(status(&emberd, "/api/evaluations", &new).await);
    }
    assert!(answers.contains(&429), "{answers:?}");

    // Nothing new is told as such; what waits for a restart is told again.
    let said = tokio::task::block_in_place(|| reloads(&emberd));
    assert!(said.contains("needs a restart") && !said.contains("[flags]") && !said.contains("[identity]"), "{said}");
    // An API that asks for tokens goes on asking.
    home.configure("");
    let said = tokio::task::block_in_place(|| reloads(&emberd));
    assert!(said.contains("[identity] jwt_secret_file") && said.contains("needs a restart"), "{said}");
    assert_eq!(status(&emberd, "/api/evaluations", "none").await, 401);
    assert!(emberd.terminate().success());
}
