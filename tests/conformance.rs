//! The sandbox's API server answers as a real one does: `tests/conformance/exchanges.yaml` is asked, `recorded.json` holds what
//! a real one answered, `differences.yaml` where the sandbox differs, and why. Recorded anew with a KUBECONFIG of the lab
//! (`e2e/lab/kube exec`): `cargo test --test all conformance::record -- --ignored`. `e2e/kube-test` asks the lab's again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use kube::Client;
use kube::client::Body;
use nodeprep_sandbox::kube::api::{self, Api, Reply};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tonic::codegen::http::Request;

/// One question, as the file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    name: String,
    /// Method and path.
    #[serde(rename = "do")]
    what: String,
    #[serde(rename = "type", default = "json")]
    content_type: String,
    #[serde(default)]
    body: Value,
    /// Asked again, a second apart, until `want` holds.
    #[serde(default = "once")]
    times: usize,
    #[serde(default)]
    want: BTreeMap<String, Value>,
}

fn json() -> String {
    "application/json".into()
}

fn once() -> usize {
    1
}

impl Exchange {
    fn method_and_path(&self) -> (&str, &str) {
        self.what.split_once(' ').unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        if self.body.is_null() { Vec::new() } else { serde_json::to_vec(&self.body).unwrap() }
    }

    /// Whether this is the answer that is waited for.
    fn wanted(&self, body: &Value) -> bool {
        let at = |path: &str| body.pointer(&format!("/{}", path.replace('.', "/")));
        self.want.iter().all(|(path, wanted)| at(path) == Some(wanted))
    }

    fn answer(&self, code: u16, body: Value) -> Answer {
        Answer { name: self.name.clone(), code, body: steady(body) }
    }
}

/// One answer, without what differs from server to server and from run to run.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    name: String,
    code: u16,
    body: Value,
}

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn exchanges() -> Vec<Exchange> {
    let text = std::fs::read_to_string(folder().join("exchanges.yaml")).unwrap();
    serde_yaml::from_str(&text).unwrap()
}

async fn ask(client: &Client, exchange: &Exchange) -> Answer {
    for left in (0..exchange.times).rev() {
        let (code, body) = once_asked(client, exchange).await;
        if left == 0 || exchange.wanted(&body) {
            return exchange.answer(code, body);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    unreachable!("an exchange is asked at least once")
}

async fn once_asked(client: &Client, exchange: &Exchange) -> (u16, Value) {
    let (method, path) = exchange.method_and_path();
    let request = Request::builder().method(method).uri(path).header("content-type", &exchange.content_type);
    let response = client.send(request.body(Body::from(exchange.bytes())).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect_bytes().await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    // A watch answers with a line per event. A bookmark that says nothing but how far it is comes when the server pleases.
    let lines = || text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let told =
        |event: &Value| event["type"] != "BOOKMARK" || !event["object"]["metadata"]["annotations"].is_null();
    let body = match serde_json::from_str(&text) {
        _ if code == 200 && path.contains("watch=true") => {
            Value::Array(lines().unwrap().into_iter().filter(told).collect())
        }
        Ok(body) => body,
        Err(_) => Value::String(text.trim().to_owned()),
    };
    (code, body)
}

/// The keys whose values are a server's own, and mean nothing.
const OWN: [&str; 9] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "lastTransitionTime",
    "firstTimestamp",
    "lastTimestamp",
    "clientIP",
];

static IDS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16}").unwrap());

fn steady(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let steady = map.into_iter().map(|(key, value)| {
                let own = OWN.contains(&key.as_str()) && !value.is_null();
                let value = if own { Value::String("(own)".into()) } else { steady(value) };
                (key, value)
            });
            let mut entries: Vec<_> = steady.collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(steady).collect()),
        Value::String(text) => Value::String(IDS.replace_all(&text, "(id)").into_owned()),
        other => other,
    }
}

async fn answers_of_a_real_server() -> Vec<Answer> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.unwrap();
    let mut answers = Vec::new();
    for exchange in exchanges() {
        let mut answer = ask(&client, &exchange).await;
        in_one_second(&mut answer.body);
        answers.push(answer);
    }
    answers
}

/// Managed fields lie by operation, second and manager; here they do as if all was asked in the same second.
fn in_one_second(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(managed)) = map.get_mut("managedFields") {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                managed.sort_by_key(|entry| {
                    ["operation", "manager", "subresource"].map(|key| text(&entry[key]))
                });
            }
            map.values_mut().for_each(in_one_second);
        }
        Value::Array(items) => items.iter_mut().for_each(in_one_second),
        _ => {}
    }
}

#[tokio::test]
#[ignore = "needs a real Kubernetes"]
async fn record() {
    let text = serde_json::to_string_pretty(&answers_of_a_real_server().await).unwrap();
    std::fs::write(folder().join("recorded.json"), text + "\n").unwrap();
}

/// On the lab, whose version is the one that was recorded.
#[tokio::test]
#[ignore = "needs a real Kubernetes"]
async fn a_real_api_server_answers_as_recorded() {
    let from_run_to_run: Vec<Difference> = differences().into_iter().filter(|one| one.varies).collect();
    all_alike(recorded(), answers_of_a_real_server().await, &from_run_to_run, "- recorded, + now");
}

fn recorded() -> Vec<Answer> {
    serde_json::from_str(&std::fs::read_to_string(folder().join("recorded.json")).unwrap()).unwrap()
}

/// How an answer differs from what was expected.
fn compared(expected: &Answer, found: &Answer) -> Option<String> {
    if expected == found {
        return None;
    }
    let text = |answer: &Answer| format!("{}\n{:#}\n", answer.code, answer.body);
    let (one, other) = (text(expected), text(found));
    let diff = similar::TextDiff::from_lines(&one, &other);
    Some(format!("{}\n{}", expected.name, diff.unified_diff().context_radius(2)))
}

fn differences() -> Vec<Difference> {
    serde_yaml::from_str(&std::fs::read_to_string(folder().join("differences.yaml")).unwrap()).unwrap()
}

/// Two rounds of answers are alike, but for these differences.
fn all_alike(expected: Vec<Answer>, found: Vec<Answer>, differences: &[Difference], sides: &str) {
    let names = |answers: &[Answer]| answers.iter().map(|answer| answer.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&found));
    let differ = expected.into_iter().zip(found).filter_map(|(mut one, mut other)| {
        for difference in differences.iter().filter(|difference| difference.name == one.name) {
            assert!(!difference.why.is_empty());
            for pointer in &difference.at {
                without(&mut one.body, pointer);
                without(&mut other.body, pointer);
            }
        }
        compared(&one, &other)
    });
    let wrong: Vec<String> = differ.collect();
    assert!(wrong.is_empty(), "{} differ ({sides}):\n{}", wrong.len(), wrong.join("\n"));
}

/// Where the sandbox answers otherwise: by exchange, the JSON pointers that are not compared, and the reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    name: String,
    at: Vec<String>,
    /// A real server itself answers now so, now so.
    #[serde(default)]
    varies: bool,
    why: String,
}

/// The recorded exchanges took seconds, which is the resolution of what a server notes: the same for all is as good.
const NOW: &str = "2026-01-01T00:00:00Z";

fn ask_sandbox(api: &mut Api, exchange: &Exchange) -> Answer {
    let (method, path) = exchange.method_and_path();
    let request = api::Request {
        method: method.into(),
        path: path.into(),
        content_type: exchange.content_type.clone(),
        body: exchange.bytes(),
        user_agent: "unknown".into(),
        accept: String::new(),
    };
    for _ in 0..exchange.times {
        let (code, body) = match api.handle(&request, NOW) {
            Reply::Json(code, body) => (code, body),
            Reply::Text(code, text) => (code, Value::String(text)),
            Reply::Watch(mut watch) => (200, Value::Array(api.changes(&mut watch, NOW.parse().unwrap()).0)),
        };
        api.settle_all(NOW);
        if exchange.wanted(&body) {
            return exchange.answer(code, body);
        }
    }
    panic!("{}: never as wanted", exchange.name)
}

fn without(value: &mut Value, pointer: &str) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.shift_remove(last);
        }
        Some(Value::Array(items)) if last.parse::<usize>().is_ok_and(|index| index < items.len()) => {
            items.remove(last.parse().unwrap());
        }
        _ => {}
    }
}

#[test]
fn the_sandbox_answers_as_a_real_api_server_does() {
    let mut api = Api::default();
    let ours = exchanges().iter().map(|exchange| ask_sandbox(&mut api, exchange)).collect();
    all_alike(recorded(), ours, &differences(), "- real, + sandbox");
}
