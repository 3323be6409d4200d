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
use parking_lot::Mutex;
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
    /// The prediction that each request was for.
    asked: Arc<Mutex<Vec<String>>>,
}

/// A server with one model; `predict` answers each prediction.
async fn cog<F>(schema: Value, state: Predictions, predict: F) -> String
where
    F: Fn(HeaderMap, Value) -> Response + Clone + Send + Sync + 'static,
{
    let prediction =
        move |State(state): State<Predictions>, Path(id): Path<String>, headers: HeaderMap, Json(body): Json<Value>| {
            state.asked.lock().push(id);
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

/// What every way to ask a Cog server has in common: who asks it, and what is said when it has time.
fn ways_to_ask() -> [(&'static str, Value, CogMode); 3] {
    [("json", json!({}), CogMode::Auto), ("chat", chat_schema(), CogMode::Auto), ("json", json!({}), CogMode::Webhook)]
}

/// The answer of a server that has time, in the way that it was asked.
fn succeed(headers: &HeaderMap, body: &Value) -> Response {
    let done = json!({"status": "succeeded", "output": ["a", "b"]});
    if let Some(webhook) = body["webhook"].as_str() {
        post_later(webhook.to_owned(), vec![done.to_string().into_bytes()], Arc::default());
        return (StatusCode::ACCEPTED, Json(json!({"status": "starting"}))).into_response();
    }
    match headers.get("accept").is_some_and(|accept| accept == "text/event-stream") {
        true => stream(vec![event("output", json!({"chunk": "ab"})), event("completed", done)], Duration::ZERO),
        false => Json(done).into_response(),
    }
}

#[tokio::test]
async fn a_busy_cog_server_is_asked_again_for_the_same_prediction_until_it_has_time() {
    for (interface, schema, cog_mode) in ways_to_ask() {
        let state = Predictions::default();
        let counted = state.clone();
        let url = cog(schema, state.clone(), move |headers, body| match counted.asked.lock().len() {
            1..=3 => (StatusCode::CONFLICT, Json(json!({"error": "At capacity", "status": "failed"}))).into_response(),
            _ => succeed(&headers, &body),
        })
        .await;
        let settings =
            Settings { busy_max: Duration::from_secs(30), run_max: Duration::from_secs(30), cog_mode, ..quick(&url) };
        let adapter = adapter("cog/1", interface, settings).await;
        let (output, said) = run(&adapter, &ChatInput::ask("hi").to_bytes()).await;
        let output = String::from_utf8(output.unwrap()).unwrap();
        match interface {
            "chat" => assert!(said == "ab" && output.contains("\"ab\""), "{output}"),
            _ => assert_eq!(output, r#"["a","b"]"#, "{cog_mode:?}"),
        }
        let asked = state.asked.lock().clone();
        assert_eq!(asked.len(), 4, "{interface} {cog_mode:?}: three times in vain");
        assert!(asked.iter().all(|id| *id == asked[0]), "one prediction: {asked:?}");
        assert_eq!(state.cancelled.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn a_cog_server_that_stays_busy_is_given_up_and_asked_again_by_the_next_run() {
    for (interface, schema, cog_mode) in ways_to_ask() {
        let state = Predictions::default();
        let is_free = Arc::new(AtomicUsize::new(0));
        let free = is_free.clone();
        let url = cog(schema, state.clone(), move |headers, body| match free.load(Ordering::Relaxed) {
            0 => (StatusCode::CONFLICT, Json(json!({"error": "somebody's words", "status": "failed"}))).into_response(),
            _ => succeed(&headers, &body),
        })
        .await;
        let adapter = adapter("cog/1", interface, Settings { cog_mode, ..quick(&url) }).await;
        let input = ChatInput::ask("hi").to_bytes();
        let begun = std::time::Instant::now();
        let busy = run(&adapter, &input).await.0;
        assert_eq!(busy, Err(AdapterError::Busy("the model's server is busy: ask again later".into())));
        assert!(begun.elapsed() >= Duration::from_millis(300), "it was asked again");
        assert!((2..=3).contains(&state.asked.lock().len()), "not for longer than 700 ms: {:?}", state.asked.lock());
        // It is well all the same, and others may ask.
        assert_eq!((adapter.ready(), adapter.status().trouble, adapter.status().running), (Ok(()), None, 0));
        is_free.store(1, Ordering::Relaxed);
        assert!(run(&adapter, &input).await.0.is_ok());
    }
}

#[tokio::test]
async fn the_state_of_a_cog_server_decides_whether_it_is_used_and_no_secret_is_told() {
    let state = |status: &str| (200, json!({"status": status}).to_string());
    let unwell = |why: Value| (200, json!({"status": "UNHEALTHY", "user_healthcheck_error": why}).to_string());
    let setup = json!({"status": "failed", "logs": "ValueError: cannot load with sk-1 and hunter2"});
    let setup_failed = json!({"status": "SETUP_FAILED", "setup": setup, "version": {"coglet": "0.23.1"}});
    let cases = [
        (state("READY"), None),
        // As the real server says it, with all that it tells beside.
        ((200, json!({"status": "READY", "setup": setup, "version": {"coglet": "0.23.1"}}).to_string()), None),
        (state("BUSY"), None),
        (state("STARTING"), Some("the model's server is starting")),
        (state("SETUP_FAILED"), Some("the model's server failed to set its model up")),
        // Its log is its owner's.
        ((200, setup_failed.to_string()), Some("the model's server failed to set its model up")),
        (state("DEFUNCT"), Some("the model's server is defunct: restart it")),
        (state("UNHEALTHY"), Some("the model's server says that it is not well")),
        (unwell(Value::Null), Some("the model's server says that it is not well")),
        (unwell(json!("gpu\nlost, sk-1")), Some("the model's server says that it is not well: gpu lost, …")),
        (state("ready"), Some("the model's server is in state \"ready\"")),
        (state("UNKNOWN"), Some("the model's server is in state \"UNKNOWN\"")),
        (state("sk-1\u{1b}[2J"), Some("the model's server is in state \"… [2J\"")),
        (state(""), Some("the model's server is in state \"\"")),
        ((200, "{}".into()), Some("the model's server is no Cog server")),
        ((200, r#"{"status":null}"#.into()), Some("the model's server is no Cog server")),
        ((200, "\"READY\"".into()), Some("the model's server is no Cog server")),
        ((200, "READY sk-1".into()), Some("the model's server is no Cog server")),
        ((200, String::new()), Some("the model's server is no Cog server")),
        // A word counts from a server that says it well only.
        ((500, r#"{"status":"READY"}"#.into()), Some("the model's server answers with 500 Internal Server Error")),
        (
            (500, r#"{"error":"sk-1 broke"}"#.into()),
            Some("the model's server answers with 500 Internal Server Error: … broke"),
        ),
        ((404, r#"{"detail":"Not Found"}"#.into()), Some("the model's server answers with 404 Not Found: Not Found")),
        ((404, "<html>sk-1</html>".into()), Some("the model's server answers with 404 Not Found")),
        ((503, "sk-1".into()), Some("the model's server answers with 503 Service Unavailable")),
        ((401, r#"{"detail":"sk-1"}"#.into()), Some("the model's server refuses the provider's key")),
        ((302, String::new()), Some("the model's server answers with 302 Found")),
        ((409, String::new()), Some("the model's server is busy: ask again later")),
    ];
    let now = Arc::new(Mutex::new((200, String::new())));
    let said = now.clone();
    let health = move |headers: HeaderMap| async move {
        assert_eq!(headers["authorization"], "Bearer sk-1");
        let (status, body) = said.lock().clone();
        let to = [(header::LOCATION, "/elsewhere")];
        (StatusCode::from_u16(status).unwrap(), to, body)
    };
    let url = serve(
        Router::new()
            .route("/health-check", get(health))
            .route("/elsewhere", get(|| async { Json(json!({"status": "READY"})) })),
    )
    .await;
    let settings = Settings { key: Some(Secret::new("sk-1")), ..quick(&url) };
    let adapter = Adapter::new(&manifest("cog/1", "json"), settings).await.unwrap();
    for (answer, expected) in cases {
        *now.lock() = answer.clone();
        let trouble = adapter.look().await;
        assert_eq!(trouble.as_deref(), expected, "{answer:?}");
        // What the look found is what clients and the provider's status are told.
        let told = trouble.clone().map_or(Ok(()), |why| Err(AdapterError::Unavailable(why)));
        assert_eq!((adapter.ready(), adapter.status().trouble), (told, trouble.clone()));
        let trouble = trouble.unwrap_or_default();
        assert!(["sk-1", "hunter2", "127.0.0.1"].iter().all(|secret| !trouble.contains(secret)), "{trouble}");
    }
}

/// Calls a webhook with one body after another, and notes the answers.
fn post_later(webhook: String, bodies: Vec<Vec<u8>>, answers: Arc<Mutex<Vec<u16>>>) {
    tokio::spawn(async move {
        for body in bodies {
            let answer = call(reqwest::Method::POST, &webhook, body).await;
            answers.lock().push(answer);
        }
    });
}

async fn call(method: reqwest::Method, url: &str, body: Vec<u8>) -> u16 {
    let call = reqwest::Client::new().request(method, url).header("content-type", "application/json").body(body);
    call.send().await.unwrap().status().as_u16()
}

/// What Cog posts while it runs a prediction.
fn progress(status: &str, output: Value) -> Vec<u8> {
    json!({"id": "x", "status": status, "output": output, "logs": "", "metrics": {}}).to_string().into_bytes()
}

#[tokio::test]
async fn a_webhook_is_called_and_its_last_word_is_how_the_prediction_ended() {
    let progresses = || vec![progress("starting", json!(null)), progress("processing", json!(["half"]))];
    let then = |last: Vec<u8>| progresses().into_iter().chain([last]).collect::<Vec<_>>();
    let failed = json!({"status": "failed", "error": "out of\nmemory sk-1"}).to_string().into_bytes();
    let whole = || progress("succeeded", json!(["half", "whole"]));
    let cases = [
        (vec![whole()], Ok(()), false),
        (then(whole()), Ok(()), false),
        (then(failed), Err("the model failed: out of memory …"), false),
        (then(progress("canceled", json!(null))), Err("the server cancelled the prediction"), false),
        (then(b"<html>".to_vec()), Err("something that is no prediction"), true),
        (then(vec![b' '; 5 << 20]), Err("the answer has more than"), true),
        // One that says how far it is, and no more.
        (progresses(), Err("longer than 3 s"), true),
    ];
    for (bodies, expected, is_cancelled) in cases {
        let (state, answers, webhooks) = (Predictions::default(), Arc::default(), Arc::new(Mutex::new(Vec::new())));
        let (posted, addresses) = (Arc::clone(&answers), webhooks.clone());
        let count = bodies.len();
        let url = cog(json!({}), state.clone(), move |headers, body| {
            assert_eq!(headers["prefer"], "respond-async");
            assert_eq!((&body["input"], &body["webhook_events_filter"]), (&json!({"x": 1}), &json!(["completed"])));
            let webhook = body["webhook"].as_str().unwrap().to_owned();
            addresses.lock().push(webhook.clone());
            post_later(webhook, bodies.clone(), Arc::clone(&posted));
            // The call may come before all of this answer has.
            let answer = json!({"id": "x", "status": "starting"}).to_string().into_bytes();
            (StatusCode::ACCEPTED, stream(vec![answer], Duration::from_millis(100))).into_response()
        })
        .await;
        let settings = Settings { cog_mode: CogMode::Webhook, key: Some(Secret::new("sk-1")), ..quick(&url) };
        let adapter = adapter("cog/1", "json", settings).await;
        let result = run(&adapter, br#"{"x":1}"#).await.0;
        match expected {
            Ok(()) => assert_eq!(result, Ok(br#"["half","whole"]"#.to_vec())),
            Err(why) => self::failed(&result, why),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answers: Vec<u16> = answers.lock().clone();
        assert_eq!(answers.len(), count, "{expected:?}");
        assert!(answers[..count - 1].iter().all(|status| *status == 200), "{expected:?}: {answers:?}");
        assert_eq!(state.cancelled.load(Ordering::Relaxed) > 0, is_cancelled, "{expected:?}");
        assert_eq!((state.asked.lock().len(), adapter.status().running), (1, 0));
        // A late call, as a server makes it that heard no answer to its first, is nobody's.
        let webhook = webhooks.lock()[0].clone();
        assert_eq!(call(reqwest::Method::POST, &webhook, whole()).await, 404, "{expected:?}");
        assert_eq!((adapter.ready(), adapter.status().trouble), (Ok(()), None));
    }
}

#[tokio::test]
async fn calls_that_nobody_expects_are_refused_and_each_run_hears_its_own() {
    let (answers, late) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (posted, addresses) = (answers.clone(), late.clone());
    let state = Predictions::default();
    let url = cog(json!({}), state.clone(), move |_, body| {
        let (posted, webhook) = (posted.clone(), body["webhook"].as_str().unwrap().to_owned());
        addresses.lock().push(webhook.clone());
        tokio::spawn(async move {
            let (base, token) = webhook.rsplit_once('/').unwrap();
            let false_word = || progress("succeeded", json!("false"));
            let mut calls = Vec::new();
            for guess in [
                format!("{base}/"),
                format!("{base}/00"),
                format!("{base}/{}", "0".repeat(64)),
                format!("{base}/{}", &token[1..]),
                format!("{base}/{}", token.to_uppercase()),
                format!("{base}/{token}/"),
                format!("{base}/{token}/x"),
                format!("{base}/x/{token}"),
                format!("{base}/?{token}"),
            ] {
                calls.push((404, call(reqwest::Method::POST, &guess, false_word()).await));
            }
            for method in [reqwest::Method::GET, reqwest::Method::PUT, reqwest::Method::DELETE] {
                calls.push((405, call(method, &webhook, false_word()).await));
            }
            // The first who asked hears last.
            let number = body["input"]["number"].as_u64().unwrap();
            tokio::time::sleep(Duration::from_millis(400 - number * 100)).await;
            calls.push((200, call(reqwest::Method::POST, &webhook, progress("succeeded", json!(number))).await));
            posted.lock().extend(calls);
        });
        (StatusCode::ACCEPTED, Json(json!({"status": "starting"}))).into_response()
    })
    .await;
    let settings =
        Settings { cog_mode: CogMode::Webhook, concurrency_max: 4, run_max: Duration::from_secs(30), ..quick(&url) };
    let adapter = adapter("cog/1", "json", settings).await;
    let inputs: Vec<_> = (0..4).map(|number| json!({"number": number}).to_string().into_bytes()).collect();
    let runs = futures::future::join_all(inputs.iter().map(|input| async { run(&adapter, input).await.0 })).await;
    assert_eq!(runs, [b"0", b"1", b"2", b"3"].map(|output| Ok(output.to_vec())));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answers = answers.lock().clone();
    assert_eq!(answers.len(), 4 * 13);
    assert!(answers.iter().all(|(expected, got)| expected == got), "{answers:?}");
    let late = late.lock().clone();
    for webhook in &late {
        assert_eq!(call(reqwest::Method::POST, webhook, progress("succeeded", json!("late"))).await, 404);
    }
    assert_eq!(late.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "each has an address of its own");
    assert_eq!(state.cancelled.load(Ordering::Relaxed), 0);
    assert_eq!(run(&adapter, br#"{"number":3}"#).await.0, Ok(b"3".to_vec()), "and the next run hears its own too");
}

#[tokio::test]
async fn a_webhook_that_nobody_calls_ends_the_run() {
    let state = Predictions::default();
    let webhooks = Arc::new(Mutex::new(Vec::new()));
    let addresses = webhooks.clone();
    let url = cog(json!({}), state.clone(), move |_, body| {
        addresses.lock().push(body["webhook"].as_str().unwrap().to_owned());
        (StatusCode::ACCEPTED, Json(json!({"status": "starting"}))).into_response()
    })
    .await;
    let adapter = adapter("cog/1", "json", Settings { cog_mode: CogMode::Webhook, ..quick(&url) }).await;
    failed(&run(&adapter, b"{}").await.0, "longer than 3 s");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(state.cancelled.load(Ordering::Relaxed), 1);
    let webhook = webhooks.lock()[0].clone();
    assert_eq!(call(reqwest::Method::POST, &webhook, progress("succeeded", json!(1))).await, 404, "nobody waits");
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
