//! The OpenAPI document as its readers use it: a linter finds no error, openapi-typescript makes types of it, and a client of these types
//! (`tests/app/contract.ts`) passes the strict compiler and runs against the real binary.

use std::path::Path;
use std::process::{Command, Output};

use super::app::modules;
use super::library::{Kind, Library};

fn tool(dir: &Path, name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(dir.join("node_modules/.bin").join(name));
    // The linter would ask the network whether it is the newest.
    command
        .args(arguments)
        .current_dir(dir)
        .env("REDOCLY_TELEMETRY", "off")
        .env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true");
    command.output().unwrap_or_else(|error| panic!("{name}: {error}; run make setup"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn succeeds(output: Output, what: &str) -> String {
    let said = said(&output);
    assert!(output.status.success(), "{what}:\n{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_one_that_clients_can_use() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/app/contract.ts");
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::os::unix::fs::symlink(modules(), dir.join("node_modules")).unwrap();
    std::fs::copy(source, dir.join("contract-client.ts")).unwrap();
    let mut is_ready = false;
    for kind in Kind::ALL {
        let library = Library::new(kind).await;
        let emberd = library.home.start();
        if !is_ready {
            let served = emberd.get("/openapi.json").await;
            let printed = Command::new(env!("CARGO_BIN_EXE_emberd")).arg("openapi").output().unwrap();
            let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
            assert_eq!(printed, served, "what is printed is what is served");
            std::fs::write(dir.join("openapi.json"), served.to_string()).unwrap();
            let lint = tool(dir, "redocly", &["lint", "--extends", "recommended", "openapi.json"]);
            succeeds(lint, "the linter");
            let types = tool(dir, "openapi-typescript", &["openapi.json", "-o", "contract.d.ts"]);
            succeeds(types, "the types");
            let check = [
                "--strict",
                "--noUncheckedIndexedAccess",
                "--target",
                "es2022",
                "--module",
                "nodenext",
                "--types",
                "node",
                "contract-client.ts",
            ];
            succeeds(tool(dir, "tsc", &check), "the compiler");
            refuses_what_the_document_does_not_know(dir);
            is_ready = true;
        }
        let ran = Command::new("node").arg(dir.join("contract-client.js")).env("API", emberd.api()).output().unwrap();
        let told = succeeds(ran, "the client");
        assert_eq!(told.lines().count(), 3, "{told}");
        emberd.terminate();
    }
}

/// A client that reads a column that there is not does not compile: the types are no `any`.
fn refuses_what_the_document_does_not_know(dir: &Path) {
    let wrong = "import type { components } from './contract';\nexport const f = (d: components['schemas']['Dataset']) => d.colour;\n";
    std::fs::write(dir.join("wrong.ts"), wrong).unwrap();
    let output = tool(dir, "tsc", &["--strict", "--noEmit", "--module", "nodenext", "--types", "node", "wrong.ts"]);
    assert!(!output.status.success() && said(&output).contains("colour"), "{}", said(&output));
}
