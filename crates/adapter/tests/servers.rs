//! Servers that are slow, busy, broken or out to harm. (The real ones, Cog and llama.cpp, are in `tests/e2e`.)

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_adapter::{Adapter, AdapterError, CogMode, Secret, Settings, discover};
use althing_runtime::{ChatInput, ImageInput, Interface, package::Manifest};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn manifest(runtime: &str, interface: &str) -> Manifest {
    let text = format!(
        "name = \"m\"\ndescription = \"\"\ninterface = {interface:?}\nruntime = {runtime:?}\nverification = \"none\"\n\
         licence = \"MIT\"\n[limits]\noutput_bytes_max = 10000\n"
    );
    Package::manifest(&text)
}

struct Package;

impl Package {
    /// As a package of that file alone has it.
    fn manifest(text: &str) -> Manifest {
        let files = [("model.toml".to_owned(), text.as_bytes().to_vec())].into();
        althing_runtime::Package::from_files(files).unwrap().manifest
    }
}

fn quick(url: &str) -> Settings {
    Settings {
        busy_max: Duration::from_millis(700),
        silence_max: Duration::from_millis(400),
        run_max: Duration::from_secs(3),
        ..Settings::new(url)
    }
}

async fn adapter(runtime: &str, interface: &str, settings: Settings) -> Adapter {
    let adapter = Adapter::new(&manifest(runtime, interface), settings).await.unwrap();
    assert_eq!(adapter.look().await, None);
    adapter
}

async fn run(adapter: &Adapter, input: &[u8]) -> (Result<Vec<u8>, AdapterError>, String) {
    let mut said = String::new();
    let result = adapter.run(input, 7, &mut |piece| said.push_str(&piece)).await;
    (result, said)
}

fn failed(result: &Result<Vec<u8>, AdapterError>, with: &str) {
    assert!(matches!(result, Err(AdapterError::Failed(why)) if why.contains(with)), "{result:?}, not {with}");
}

// ---- OpenAI's API ----

/// A server with one model whose answers `answer` makes.
async fn openai<F>(answer: F) -> String
where
    F: Fn(HeaderMap, Value) -> Response + Clone + Send + Sync + 'static,
{
    let models = json!({"object": "list", "data": [{"id": "theirs"}]});
    let chat = move |headers: HeaderMap, Json(body): Json<Value>| {
        let response = answer(headers, body);
        async move { response }
    };
    serve(
        Router::new()
            .route("/v1/models", get(move || async move { Json(models) }))
            .route("/v1/chat/completions", post(chat)),
    )
    .await
}

/// A stream of pieces, with a pause after each.
fn stream(pieces: Vec<Vec<u8>>, pause: Duration) -> Response {
    let pieces = futures::stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, std::io::Error>(Bytes::from(piece))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
}

#[tokio::test]
async fn a_stream_passes_byte_for_byte_however_it_is_cut() {
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"þ€😀\",\"tool_calls\":[]}}]}\r\n\r\ndata: [DONE]\n\n";
    let url = openai(move |headers, body| {
        assert_eq!((&body["model"], &body["tools"]), (&json!("theirs"), &json!([{"x": 1}])));
        assert_eq!(headers["authorization"], "Bearer sk-1");
        stream(text.bytes().map(|byte| vec![byte]).collect(), Duration::ZERO)
    })
    .await;
    let adapter = adapter("openai/1", "chat", Settings { key: Some(Secret::new("sk-1")), ..quick(&url) }).await;
    let (output, said) = run(&adapter, br#"{"messages":[],"stream":true,"tools":[{"x":1}]}"#).await;
    assert_eq!((output.unwrap(), said.as_str()), (text.as_bytes().to_vec(), text));
    assert_eq!(adapter.status().runtime, "openai/1");
}

#[tokio::test]
async fn whole_answers_pass_as_they_are() {
    let url = openai(|_, _| ([(header::CONTENT_TYPE, "application/json")], "{\"a\" : 1.0}\n").into_response()).await;
    let adapter = adapter("openai/1", "chat", quick(&url)).await;
    let (output, said) = run(&adapter, b"{}").await;
    assert_eq!((output.unwrap(), said.as_str()), (b"{\"a\" : 1.0}\n".to_vec(), "{\"a\" : 1.0}\n"));
}

#[tokio::test]
async fn streams_that_are_slow_broken_endless_or_no_text_end_with_the_reason() {
    let piece = |text: &str| text.as_bytes().to_vec();
    let event = "data: {\"choices\":[]}\n\n";
    type Cut = (Vec<Vec<u8>>, Duration, &'static str);
    let cases: Vec<Cut> = vec![
        (vec![piece(event)], Duration::ZERO, "ended before its end"),
        (vec![piece(event), vec![0xff], piece("data: [DONE]\n\n")], Duration::ZERO, "no text"),
        (vec![piece(event), vec![0xc3]], Duration::ZERO, "no text"),
        (vec![piece(event); 3], Duration::from_millis(600), "nothing came"),
        (vec![vec![b'x'; 1000]; 100], Duration::ZERO, "more than 10000 bytes"),
        // Never silent for long, and never done.
        (vec![piece(": ping\n"); 100], Duration::from_millis(100), "longer than 3 s"),
        (
            vec![piece("data: {\"error\":{\"message\":\"oh\"}}\n\ndata: [DONE]\n\n")],
            Duration::ZERO,
            "failed in the middle",
        ),
    ];
    for (pieces, pause, expected) in cases {
        let url = openai(move |_, _| stream(pieces.clone(), pause)).await;
        let adapter = adapter("openai/1", "chat", quick(&url)).await;
        failed(&run(&adapter, br#"{"stream":true}"#).await.0, expected);
        // The next one is asked all the same.
        assert_eq!((adapter.ready(), adapter.status().running), (Ok(()), 0));
    }
}

#[tokio::test]
async fn errors_say_whose_fault_it_is_and_not_the_key() {
    for (status, body, expected) in [
        (
            400,
            json!({"error": {"message": "too long", "code": "context_length_exceeded"}}),
            "refused context_length_exceeded too long",
        ),
        (422, json!({"detail": "no"}), "refused invalid_input no"),
        (
            401,
            json!({"error": {"message": "Incorrect API key provided: sk-1"}}),
            "unavailable the model's server refuses the provider's key",
        ),
        (
            500,
            json!({"error": {"message": "key sk-1 is bad"}}),
            "failed the model's server answers with 500 Internal Server Error: key … is bad",
        ),
        (
            503,
            json!({"error": "loading somebody's words"}),
            "unavailable the model's server answers with 503 Service Unavailable",
        ),
        (429, json!({}), "busy the model's server is busy: ask again later"),
        (
            200,
            json!({"error": {"message": "x"}}),
            "failed the model's server answered with something that is no answer",
        ),
        (307, json!({}), "failed the model's server answers with 307 Temporary Redirect"),
    ] {
        let url = openai(move |_, _| {
            let headers = [(header::LOCATION, "http://127.0.0.1:1/"), (header::RETRY_AFTER, "18446744073709551615")];
            (StatusCode::from_u16(status).unwrap(), headers, Json(body.clone())).into_response()
        })
        .await;
        let adapter = adapter("openai/1", "chat", Settings { key: Some(Secret::new("sk-1")), ..quick(&url) }).await;
        let got = match run(&adapter, b"{}").await.0.unwrap_err() {
            AdapterError::Refused { code, message } => format!("refused {code} {message}"),
            AdapterError::Busy(why) => format!("busy {why}"),
            AdapterError::Unavailable(why) => format!("unavailable {why}"),
            AdapterError::Failed(why) => format!("failed {why}"),
        };
        assert_eq!(got, expected);
        // A server in trouble is left alone until a look finds it well.
        let in_trouble = expected.starts_with("unavailable");
        assert_eq!(adapter.ready().is_err(), in_trouble);
        assert_eq!((adapter.look().await, adapter.ready()), (None, Ok(())));
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again_until_it_has_time() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let url = openai(move |_, _| match counted.fetch_add(1, Ordering::Relaxed) {
        0 => StatusCode::TOO_MANY_REQUESTS.into_response(),
        _ => Json(json!({"choices": []})).into_response(),
    })
    .await;
    let adapter = adapter("openai/1", "chat", quick(&url)).await;
    assert!(run(&adapter, b"{}").await.0.is_ok());
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_and_more_are_turned_away() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (now.clone(), most.clone());
    let app = Router::new().route("/v1/models", get(|| async { Json(json!({"data": [{"id": "theirs"}]})) })).route(
        "/v1/chat/completions",
        post(move || {
            let (now, most) = counters.clone();
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(200)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Json(json!({"choices": []}))
            }
        }),
    );
    let settings = Settings { concurrency_max: 2, waiting_max: 2, ..quick(&serve(app).await) };
    let adapter = adapter("openai/1", "chat", settings).await;
    let results = futures::future::join_all((0..6).map(|_| async { run(&adapter, b"{}").await.0 })).await;
    let busy = results.iter().filter(|result| matches!(result, Err(AdapterError::Busy(_)))).count();
    assert_eq!((results.iter().filter(|result| result.is_ok()).count(), busy), (4, 2));
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_server_that_is_not_there_or_has_other_models_is_in_trouble() {
    let manifest = manifest("openai/1", "chat");
    let nobody = Adapter::new(&manifest, quick("http://127.0.0.1:9")).await.unwrap();
    assert!(matches!(nobody.ready(), Err(AdapterError::Unavailable(_))), "nobody has looked yet");
    assert!(nobody.look().await.unwrap().contains("Connection refused"));
    let several = json!({"data": [{"id": "a"}, {"id": "b"}]});
    let url = serve(Router::new().route("/v1/models", get(move || async move { Json(several) }))).await;
    for (model, trouble) in
        [(None, Some("several models")), (Some("c"), Some("no model \"c\"; it has \"a\", \"b\"")), (Some("b"), None)]
    {
        let settings = Settings { model: model.map(Into::into), ..quick(&url) };
        let seen = Adapter::new(&manifest, settings).await.unwrap().look().await;
        assert!(trouble.map_or(seen.is_none(), |trouble| seen.as_deref().unwrap().contains(trouble)), "{seen:?}");
    }
}

// ---- Cog ----

#[derive(Clone, Default)]
struct Predictions {
    cancelled: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
}

/// A server with one model; `predict` answers each prediction.
async fn cog<F>(schema: Value, state: Predictions, predict: F) -> String
where
    F: Fn(HeaderMap, Value) -> Response + Clone + Send + Sync + 'static,
{
    let prediction =
        move |State(state): State<Predictions>, Path(_): Path<String>, headers: HeaderMap, Json(body): Json<Value>| {
            state.begun.fetch_add(1, Ordering::Relaxed);
            let response = predict(headers, body);
            async move { response }
        };
    let cancel = |State(state): State<Predictions>, Path(_): Path<String>| async move {
        state.cancelled.fetch_add(1, Ordering::Relaxed);
        Json(json!({}))
    };
    serve(
        Router::new()
            .route("/health-check", get(|| async { Json(json!({"status": "READY"})) }))
            .route("/openapi.json", get(move || async move { Json(schema) }))
            .route("/predictions/{id}", put(prediction))
            .route("/predictions/{id}/cancel", post(cancel))
            .with_state(state),
    )
    .await
}

fn chat_schema() -> Value {
    json!({
        "components": {"schemas": {"Input": {"properties": {"prompt": {}}}, "Output": {"type": "array"}}},
        "paths": {"/predictions": {"post": {"x-cog-streaming": true}}},
    })
}

fn event(name: &str, data: Value) -> Vec<u8> {
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

#[tokio::test]
async fn a_cog_stream_that_does_not_end_well_is_cancelled_and_fails_with_the_reason() {
    let output = || event("output", json!({"chunk": "a", "index": 0}));
    let done = |status: &str| event("completed", json!({"status": status, "error": "out of\nmemory", "output": ["a"]}));
    let cases = [
        (vec![output(), done("failed")], Duration::ZERO, "the model failed: out of memory", false),
        (vec![output(), done("canceled")], Duration::ZERO, "cancelled", false),
        (vec![output()], Duration::ZERO, "broke off", true),
        (vec![event("output", json!({"chunk": 3}))], Duration::ZERO, "no text", true),
        (vec![output(); 20], Duration::from_millis(600), "nothing came", true),
        (vec![event("error", json!("replay buffer"))], Duration::ZERO, "replay buffer", true),
        (vec![b"data: ".to_vec(), vec![b'x'; 5 << 20]], Duration::ZERO, "more than 10000 bytes", true),
        // However many lines come, in however few pieces.
        (vec![b"data: \xff\n".to_vec(), vec![b'\n'; 4 << 20]], Duration::ZERO, "it is no text", true),
        (vec![vec![b'\n'; 4 << 20]], Duration::ZERO, "it has no end", true),
        // What some servers put before a text.
        (vec!["\u{feff}\u{feff}".into(), output(), done("failed")], Duration::ZERO, "out of memory", false),
    ];
    for (pieces, pause, expected, is_cancelled) in cases {
        let state = Predictions::default();
        let url = cog(chat_schema(), state.clone(), move |_, _| stream(pieces.clone(), pause)).await;
        let adapter = adapter("cog/1", "chat", quick(&url)).await;
        failed(&run(&adapter, &ChatInput::ask("hi").to_bytes()).await.0, expected);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(state.cancelled.load(Ordering::Relaxed) > 0, is_cancelled, "{expected}");
    }
}

#[tokio::test]
async fn who_gives_a_cog_run_up_cancels_it() {
    let state = Predictions::default();
    let pieces = vec![event("output", json!({"chunk": "a"})); 50];
    let url = cog(chat_schema(), state.clone(), move |_, _| stream(pieces.clone(), Duration::from_millis(100))).await;
    let adapter = adapter("cog/1", "chat", quick(&url)).await;
    let input = ChatInput::ask("hi").to_bytes();
    assert!(tokio::time::timeout(Duration::from_millis(300), run(&adapter, &input)).await.is_err());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(state.cancelled.load(Ordering::Relaxed), 1);
    // One that lasts longer than a run may is cancelled too.
    failed(&run(&adapter, &input).await.0, "longer than 3 s");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(state.cancelled.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn files_of_cog_models_are_pictures_or_fail() {
    const PIXEL: &str =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
    let picture = json!(format!("data:image/png;base64,{PIXEL}"));
    for (output, expected) in [
        (picture.clone(), None),
        (json!([picture, picture]), None),
        (json!("data:image/png;base64,!"), Some("damaged")),
        (json!("data:image/png;base64,aGFsbG8="), Some("not a picture")),
        (json!("http://elsewhere/x.png"), Some("--upload-url")),
        (json!(null), Some("no file")),
        (json!([]), Some("no file")),
    ] {
        let url = cog(json!({}), Predictions::default(), move |_, body| {
            assert_eq!(body, json!({"input": {"prompt": "a fox"}}));
            Json(json!({"status": "succeeded", "output": output})).into_response()
        })
        .await;
        let adapter = adapter("cog/1", "image", quick(&url)).await;
        let input = ImageInput { prompt: "a fox".into(), width: 512, height: 512 }.to_bytes();
        let result = run(&adapter, &input).await.0;
        match expected {
            Some(expected) => failed(&result, expected),
            None => assert!(result.unwrap().starts_with(b"\x89PNG")),
        }
    }
}

#[tokio::test]
async fn a_webhook_that_nobody_calls_ends_the_run_and_foreign_calls_do_nothing() {
    let state = Predictions::default();
    let url = cog(json!({}), state.clone(), |headers, body| {
        assert_eq!(headers["prefer"], "respond-async");
        let webhook = body["webhook"].as_str().unwrap().to_owned();
        // Somebody who does not know the address calls in vain.
        tokio::spawn(async move {
            let guessed = webhook.rsplit_once('/').unwrap().0.to_owned() + "/00";
            let body = json!({"status": "succeeded", "output": 1});
            let status = reqwest::Client::new().post(guessed).json(&body).send().await.unwrap().status();
            assert_eq!(status, 404);
        });
        (StatusCode::ACCEPTED, Json(json!({"status": "starting"}))).into_response()
    })
    .await;
    let adapter = adapter("cog/1", "json", Settings { cog_mode: CogMode::Webhook, ..quick(&url) }).await;
    failed(&run(&adapter, b"{}").await.0, "longer than 3 s");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(state.cancelled.load(Ordering::Relaxed), 1);
}

// ---- discovery ----

#[tokio::test]
async fn servers_are_told_apart() {
    let url = openai(|_, _| StatusCode::OK.into_response()).await;
    let found = discover(&quick(&url)).await.unwrap();
    assert_eq!((found.runtime, found.interface, found.name.as_str()), ("openai/1", Interface::Chat, "theirs"));
    let error = discover(&Settings { model: Some("x".into()), ..quick(&url) }).await.unwrap_err().to_string();
    assert!(error.contains("has no model \"x\"; it has \"theirs\""), "{error}");
    let url = cog(chat_schema(), Predictions::default(), |_, _| StatusCode::OK.into_response()).await;
    let found = discover(&quick(&url)).await.unwrap();
    assert_eq!((found.runtime, found.interface), ("cog/1", Interface::Json));
    assert_eq!(found.inputs.as_deref(), Some(&["prompt".to_owned()][..]));
    let nothing = serve(Router::new()).await;
    let error = discover(&quick(&nothing)).await.unwrap_err().to_string();
    assert!(error.contains("neither a Cog server"), "{error}");
}
