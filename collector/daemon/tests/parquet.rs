//! Other people's Parquet, uploaded to a running emberd: each file is a dataset or an answer that says what is wrong, and emberd lives.

#![allow(clippy::unwrap_used, reason = "a test fails where it must")]
#![allow(dead_code, unreachable_pub, reason = "these modules are shared with other tests")]

#[path = "../../../evaluators/datasets/tests/common/mutants.rs"]
mod mutants;
#[path = "it/process.rs"]
mod process;

use emberd_evaluators_datasets::{Format, Import, Reader, Type};
use process::{Emberd, Home};
use serde_json::Value;

/// How much more memory emberd may have had after thousands of hostile files, in MiB.
const GROWTH_MIB_MAX: u64 = 96;

/// The status, and what was said.
async fn upload(client: &reqwest::Client, emberd: &Emberd, file: Vec<u8>) -> (u16, Value) {
    let url = format!("{}/api/datasets/upload?name=hostile&type=custom", emberd.api());
    let request = client.post(url).header("content-type", "application/vnd.apache.parquet").body(file);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
}

fn said(answer: &Value) -> &str {
    answer["details"][0]["message"].as_str().unwrap_or("")
}

/// Mutants that make the crate panic, one in `step` of the others, and a page that asks for 2 GiB.
async fn files_cost_only_themselves(step: usize) {
    let home = Home::new();
    let emberd = home.start();
    let client = reqwest::Client::new();
    let file = mutants::file();
    let (status, answer) = upload(&client, &emberd, file.clone()).await;
    assert_eq!((status, &answer["examples"]), (201, &Value::from(40)), "{answer}");
    let before = emberd.rss_max_mib();

    let how = Import::new(Type::Custom, Format::Parquet);
    std::panic::set_hook(Box::new(|_| ()));
    let (mut panics, mut made, mut refused) = (0, 0, 0);
    for (index, mutant) in mutants::mutants(&file).enumerate() {
        let here = Reader::Here.import(mutant.clone().into(), &how).map_err(|error| error.to_string());
        let panicked = here.as_ref().is_err_and(|said| said.ends_with("its Parquet is malformed"));
        if !panicked && !index.is_multiple_of(step) {
            continue;
        }
        let (status, answer) = upload(&client, &emberd, mutant).await;
        match (status, here) {
            (201, Ok(examples)) => {
                made += 1;
                assert_eq!(answer["examples"], Value::from(examples.len()), "{index}");
            }
            (400, Err(here)) if panicked => {
                panics += 1;
                assert!(said(&answer).ends_with("the file's Parquet is malformed"), "{index}: {answer} {here}");
            }
            // Faults are told by row, the rest as it is told here.
            (400, Err(_)) => {
                refused += 1;
                assert!(!said(&answer).is_empty(), "{index}: {answer}");
            }
            (status, here) => panic!("{index}: {status} {answer}, here {here:?}"),
        }
    }
    let _ = std::panic::take_hook();
    for _ in 0..3 {
        let (status, answer) = upload(&client, &emberd, mutants::lying()).await;
        assert_eq!((status, said(&answer)), (400, "row 1: asks for more than 512 MiB of memory"), "{answer}");
    }
    let growth = emberd.rss_max_mib() - before;
    println!("{made} datasets, {refused} refused, {panics} that make the crate panic; memory grew by {growth} MiB");
    assert!(panics > 0 && refused > 0 && made > 0 && growth <= GROWTH_MIB_MAX, "{growth} MiB");
    assert!(emberd.terminate().success());
}

#[tokio::test]
async fn hostile_files_cost_only_themselves() {
    files_cost_only_themselves(200).await;
}

/// All 20,000, which takes minutes.
#[tokio::test]
#[ignore = "minutes; the test above takes a sample"]
async fn every_hostile_file_costs_only_itself() {
    files_cost_only_themselves(1).await;
}
