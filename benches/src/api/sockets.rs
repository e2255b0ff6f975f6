//! Sockets that listen while traces come: how long after a trace was sent it is heard, and whether all are.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::{Error, Message};
use uuid::Uuid;

use super::client::{Asked, Client, User};
use super::{Emberd, OTLP, Options};
use crate::server::API;

pub(super) const HEAD: [&str; 9] =
    ["", "events", "deliveries", "missed", "lagged", "p50 ms", "p95 ms", "p99 ms", "emberd's CPU, RSS MiB"];
const PROMPTS: usize = 100;
/// Requests with traces in a second.
const SENDS: usize = 10;

/// What all sockets heard.
#[derive(Default)]
struct Heard {
    sent: RefCell<HashMap<String, Instant>>,
    millis: RefCell<Vec<f64>>,
    lagged: Cell<usize>,
    ready: Cell<usize>,
}

/// `narrow`: each socket hears of one of a hundred prompts; else of all.
pub(super) async fn run(
    options: &Options,
    emberd: &Emberd,
    users: &[User],
    name: &str,
    narrow: bool,
) -> anyhow::Result<Vec<String>> {
    let client = Client::new(users);
    let prompts = client.prompts(PROMPTS).await?;
    // What every socket hears, every socket must be told: so many fewer.
    let events = if narrow { options.events } else { (options.events / PROMPTS).max(SENDS) };
    let heard = Rc::new(Heard::default());
    let local = tokio::task::LocalSet::new();
    let figures = local.run_until(async {
        for nr in 0..options.sockets {
            let (heard, token) = (Rc::clone(&heard), users[nr % users.len()].token.clone());
            let prompt = narrow.then(|| prompts[nr % PROMPTS].clone());
            tokio::task::spawn_local(async move {
                if let Err(error) = listen(&heard, &token, prompt).await {
                    eprintln!("api: a socket ended: {error:#}");
                }
            });
            if nr % 20 == 19 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let since = Instant::now();
        while heard.ready.get() < options.sockets {
            anyhow::ensure!(since.elapsed() < Duration::from_secs(60), "{} sockets are in", heard.ready.get());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (begun, before) = (Instant::now(), emberd.process.cpu()?);
        let requests = (options.seconds * SENDS as f64) as usize;
        for request in 0..requests {
            let due = begun + Duration::from_secs_f64(request as f64 / SENDS as f64);
            tokio::time::sleep_until(due.into()).await;
            let ids: Vec<String> = (0..events / SENDS).map(|_| Uuid::new_v4().simple().to_string()).collect();
            let now = Instant::now();
            heard.sent.borrow_mut().extend(ids.iter().map(|id| (id.clone(), now)));
            let first = request * ids.len();
            client.send(OTLP, &ids, |nr| prompts[(first + nr) % PROMPTS].as_str()).await?;
        }
        let took = begun.elapsed().as_secs_f64();
        let cpu = (emberd.process.cpu()? - before) / took;
        tokio::time::sleep(Duration::from_secs(3)).await;
        anyhow::Ok(cpu)
    });
    let cpu = figures.await?;
    let sent = heard.sent.borrow().len();
    let each = if narrow { options.sockets / PROMPTS } else { options.sockets };
    let asked = Asked::of(heard.millis.take(), 0);
    let ms = |part: f64| format!("{:.1}", asked.percentile(part));
    Ok(vec![
        format!("{name}, each of {}", if narrow { "one prompt in a hundred" } else { "all prompts" }),
        sent.to_string(),
        asked.count().to_string(),
        (sent * each).saturating_sub(asked.count()).to_string(),
        heard.lagged.get().to_string(),
        ms(0.5),
        ms(0.95),
        ms(0.99),
        format!("{:.0} %, {:.0}", cpu * 100.0, emberd.process.peak_rss_mib()),
    ])
}

/// As socket.io-client does it: Engine.IO's opening, Socket.IO's connect with the token, an answer to each ping.
async fn listen(heard: &Heard, token: &str, prompt: Option<String>) -> anyhow::Result<()> {
    let address = format!("ws://{API}/socket.io/?EIO=4&transport=websocket");
    // Too many of one address that have not shown a token yet are told to come again, and do.
    let mut socket = loop {
        match tokio_tungstenite::connect_async(&address).await {
            Ok((socket, _)) => break socket,
            Err(Error::Http(_)) => tokio::time::sleep(Duration::from_millis(200)).await,
            Err(error) => return Err(error.into()),
        }
    };
    let auth = match prompt {
        Some(prompt) => serde_json::json!({ "token": token, "promptIds": [prompt] }),
        None => serde_json::json!({ "token": token }),
    };
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        match text.as_bytes() {
            [b'0', ..] => socket.send(Message::text(format!("40{auth}"))).await?,
            [b'2'] => socket.send(Message::text("3")).await?,
            [b'4', b'0', ..] => heard.ready.set(heard.ready.get() + 1),
            [b'4', b'4', ..] => bail!("refused: {text}"),
            [b'4', b'2', ..] if text.contains("trace:complete") => {
                let id =
                    text.split_once("\"traceId\":\"").and_then(|(_, rest)| rest.get(..32)).context("no traceId")?;
                if let Some(sent) = heard.sent.borrow().get(id) {
                    heard.millis.borrow_mut().push(sent.elapsed().as_secs_f64() * 1e3);
                }
            }
            [b'4', b'2', ..] => heard.lagged.set(heard.lagged.get() + 1),
            _ => {}
        }
    }
    Ok(())
}
