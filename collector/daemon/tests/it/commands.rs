//! The command line, as an operator and a script use it.

use super::client::{Client, Export, Transport};
use super::library::{Kind, Library};
use super::process::Home;

/// All mistakes of a configuration come at once, with file, line and key, before a port is bound; exit code 78.
#[test]
fn check_config_names_every_mistake() {
    let home = Home::new();
    let file = home.path().join("bad.toml");
    std::fs::write(&file, "[intake]\ngrpcc = \"127.0.0.1:4317\"\n[log]\nbudget = \"-1\"\n").unwrap();
    for command in ["check-config", "serve"] {
        let done = home.command(&[command, "--config", file.to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
        assert_eq!(done.status.code(), Some(78), "{command}: {said}");
        assert!(said.contains("bad.toml:2") && said.contains("grpcc") && said.contains("grpc"), "{said}");
        assert!(said.contains("bad.toml:4") && said.contains("budget"), "{said}");
    }
    assert!(!home.path().join("run.json").exists());
    let fine = home.command(&["check-config"]).output().unwrap();
    assert!(fine.status.success(), "{}", String::from_utf8_lossy(&fine.stderr));
}

/// `emberd status` finds the running daemon by its data directory; `--json` is for scripts; no daemon is exit code 1.
#[tokio::test(flavor = "multi_thread")]
async fn status_tells_what_is_kept() {
    let library = Library::new(Kind::Sqlite).await;
    let nobody = library.home.command(&["status"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1), "{}", String::from_utf8_lossy(&nobody.stderr));

    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    for fixture in super::fixtures::all() {
        for export in &fixture.requests {
            client.send(Transport::Grpc, export).await.unwrap();
        }
    }
    emberd.recorded().await;
    let done = library.home.command(&["status", "--json"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let status: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let ledger = &status["ledger"];
    let accepted = ledger["accepted_spans"].as_u64().unwrap();
    assert!(accepted > 40);
    assert_eq!(ledger["received_spans"], accepted);
    assert_eq!(ledger["consumers"]["recorder"]["done"], accepted);
    assert_eq!(ledger["consumers"]["recorder"]["pending"], 0);
    assert_eq!(status["log"]["head"], accepted);
    let people = library.home.command(&["status"]).output().unwrap();
    let text = String::from_utf8_lossy(&people.stdout).into_owned();
    assert!(people.status.success() && text.contains("recorder") && text.contains(&accepted.to_string()), "{text}");
}

/// Migrations are run by hand where one wants to: down to nothing, up again, and `status` tells.
#[tokio::test(flavor = "multi_thread")]
async fn migrate_goes_down_and_up() {
    for kind in Kind::ALL {
        let library = Library::new(kind).await;
        for (arguments, expected) in [
            (&["migrate", "up"][..], "applied"),
            (&["migrate", "status"], "applied"),
            (&["migrate", "down", "--to", "0"], "0"),
            (&["migrate", "status"], "pending"),
            (&["migrate", "up"], "applied"),
        ] {
            let done = library.home.command(arguments).output().unwrap();
            let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{kind:?} {arguments:?}: {said}");
            assert!(said.contains(expected), "{kind:?} {arguments:?}: {said}");
        }
        assert!(library.traces().await.is_empty());
    }
}

/// What a reader of a prompt's page gets, from the fixture that names a prompt: created before or after its traces came.
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_finds_its_traces_whenever_it_is_made() {
    for kind in Kind::ALL {
        for made_first in [true, false] {
            let library = Library::new(kind).await;
            let emberd = library.home.start();
            let make = || async {
                let http = reqwest::Client::new();
                let body =
                    serde_json::json!({"title": "prompt-faq-answer", "content": "What is the capital of {country}?"});
                let answer = http.post(format!("{}/api/prompts", emberd.api())).json(&body).send().await.unwrap();
                assert_eq!(answer.status(), 201);
                answer.json::<serde_json::Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
            };
            let send = async || {
                let mut client = Client::connect(&emberd).await;
                for fixture in super::fixtures::all().iter().filter(|fixture| fixture.name == "oi-prompt-id") {
                    for Export { protobuf, .. } in &fixture.requests {
                        client.send_grpc(protobuf.clone()).await.unwrap();
                    }
                }
                emberd.recorded().await;
            };
            let id = if made_first {
                let id = make().await;
                send().await;
                id
            } else {
                send().await;
                make().await
            };
            let since = std::time::Instant::now();
            let performance = loop {
                let performance = emberd.get(&format!("/api/prompts/{id}/performance")).await;
                if performance["data"].as_array().is_some_and(|rows| !rows.is_empty()) {
                    break performance;
                }
                assert!(since.elapsed() < super::process::PATIENCE, "{kind:?} {made_first}: {performance}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            };
            let traces = emberd.get(&format!("/api/prompts/{id}/traces")).await;
            assert_eq!(traces["data"].as_array().unwrap().len(), 1, "{traces}");
            assert_eq!(traces["data"][0]["execution_time_ms"], 200);
            assert_eq!(traces["data"][0]["metadata"]["prompt_ref"], "prompt-faq-answer");
            let p50 =
                performance["data"].as_array().unwrap().iter().find(|m| m["metric_type"] == "latency_p50").unwrap();
            assert_eq!(p50["value"].as_f64(), Some(200.0));
            assert_eq!(performance["summary"]["total_traces"], 1, "{performance}");
        }
    }
}
