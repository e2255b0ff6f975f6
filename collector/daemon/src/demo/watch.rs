//! What the demo shows: the first trace arriving everywhere, then one line that lives.

use std::io::Write;
use std::time::{Duration, Instant};

use emberd_phoenix::process::Phoenix;
use serde_json::Value;

use super::playground::{Playground, Try};
use crate::wiring::Addresses;

/// Looks at emberd and Phoenix from outside, as anyone could.
pub(super) struct Watch {
    http: reqwest::Client,
    api: String,
    phoenix: String,
    began: Instant,
    terminal: bool,
    first: Option<Try>,
    arrived: [bool; 3],
}

/// On an empty directory Phoenix takes about 20 s, on a busy machine more.
const PHOENIX_PATIENCE: Duration = Duration::from_secs(180);
/// Where a trace must show up.
const PLACES: [&str; 3] = ["prompt_traces", "prompt_performance_metrics", "Phoenix"];

impl Watch {
    pub(super) fn new(addresses: &Addresses, phoenix: String, began: Instant, terminal: bool) -> Self {
        let api = format!("http://{}", addresses.api);
        Self { http: reqwest::Client::new(), api, phoenix, began, terminal, first: None, arrived: [false; 3] }
    }

    /// Whether the playground's first trace was seen in every place.
    pub(super) fn arrived_everywhere(&self) -> bool {
        self.arrived == [true; 3]
    }

    /// Follows Phoenix as it comes up, and the playground until it ends.
    pub(super) async fn go_on(&mut self, phoenix: &mut Phoenix, playground: &mut Playground) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let mut tries = 0_u64;
        let mut ready = std::pin::pin!(phoenix.ready(PHOENIX_PATIENCE));
        let mut is_up = false;
        loop {
            tokio::select! {
                done = &mut ready, if !is_up => {
                    done?;
                    is_up = true;
                    self.say("Phoenix is up");
                }
                sent = playground.next() => {
                    let sent = sent?;
                    tries += 1;
                    if self.first.is_none() {
                        self.say(&format!("the playground sent its first trace, {}", sent.trace));
                        self.first = Some(sent);
                    }
                }
                _ = tick.tick() => {
                    self.look_for_first().await;
                    if self.arrived_everywhere() {
                        self.live_line(tries).await;
                    }
                }
            }
        }
    }

    async fn look_for_first(&mut self) {
        let Some(first) = self.first.clone() else { return };
        let Try { trace, prompt } = &first;
        for (place, name) in PLACES.iter().enumerate() {
            if self.arrived[place] {
                continue;
            }
            let found = match place {
                0 => self
                    .get(&format!("{}/api/prompts/{prompt}/traces?limit=200", self.api))
                    .await
                    .is_some_and(|page| rows(&page).iter().any(|row| row["phoenix_trace_id"] == **trace)),
                1 => self
                    .get(&format!("{}/api/prompts/{prompt}/performance?window=1h", self.api))
                    .await
                    .is_some_and(|page| !rows(&page).is_empty()),
                _ => self
                    .get(&format!("{}/v1/projects/playground/spans?trace_id={trace}", self.phoenix))
                    .await
                    .is_some_and(|page| !rows(&page).is_empty()),
            };
            if found {
                self.arrived[place] = true;
                self.say(&format!("the first trace is in {name}"));
            }
        }
    }

    async fn live_line(&self, tries: u64) {
        let Some(status) = self.get(&format!("{}/api/status", self.api)).await else { return };
        let ledger = &status["ledger"];
        let (recorder, phoenix) = (&ledger["consumers"]["recorder"], &ledger["consumers"]["phoenix"]);
        let line = format!(
            "{tries} tries · {} spans kept · recorded {} (pending {}) · Phoenix: sent {}, verified {} (pending {}, quarantined {})",
            ledger["accepted_spans"],
            recorder["done"],
            recorder["pending"],
            phoenix["sent"],
            phoenix["verified"],
            phoenix["pending"],
            phoenix["quarantined"],
        );
        if self.terminal {
            print!("\r\x1b[2K{line}");
            let _ = std::io::stdout().flush();
        } else if tries.is_multiple_of(20) {
            println!("{line}");
        }
    }

    async fn get(&self, url: &str) -> Option<Value> {
        let answer = self.http.get(url).timeout(Duration::from_secs(5)).send().await.ok()?;
        answer.status().is_success().then_some(())?;
        answer.json().await.ok()
    }

    fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }
}

fn rows(page: &Value) -> &[Value] {
    page["data"].as_array().map_or(&[], Vec::as_slice)
}
