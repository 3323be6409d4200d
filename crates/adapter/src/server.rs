//! Requests to one server: its key, what its errors mean, and that no answer is larger or slower than it may be.

use crate::{AdapterError, Settings, SetupError};
use bytes::Bytes;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
    redirect,
};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// How long a connection may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How soon a server that is busy is asked again, if it does not say.
const BUSY_PAUSE: Duration = Duration::from_millis(300);
/// Longest text of a server's error that is passed on, characters.
const MESSAGE_CHARS_MAX: usize = 500;
/// Longest body of an error that is read, bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// A key that is shown to nobody but its server.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Without the white space around it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A server, and how it is asked.
pub struct Server {
    http: reqwest::Client,
    base_url: String,
    authorization: Option<HeaderValue>,
    key: Option<Secret>,
    busy_max: Duration,
    silence_max: Duration,
}

impl Server {
    /// The server of `settings`; `default_path` is where it is if the URL says nothing beside the host.
    ///
    /// # Errors
    /// If the URL or the key is none.
    pub fn new(settings: &Settings, default_path: &str) -> Result<Self, SetupError> {
        // What does not parse may hold a password all the same.
        let not_url = || match settings.url.contains('@') {
            true => SetupError::UrlWithPassword,
            false => SetupError::Url(settings.url.clone()),
        };
        let url = Url::parse(&settings.url).map_err(|_| not_url())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SetupError::UrlWithPassword);
        }
        let plain = matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
        if !plain || !url.has_host() {
            return Err(not_url());
        }
        let path = if url.path() == "/" { default_path } else { "" };
        let authorization = match &settings.key {
            None => None,
            Some(Secret(key)) => {
                let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| SetupError::Key)?;
                // Not in anybody's log.
                value.set_sensitive(true);
                Some(value)
            }
        };
        // The key goes to its server alone: no proxy, no redirect.
        let http = reqwest::Client::builder().no_proxy().redirect(redirect::Policy::none());
        let http = http.connect_timeout(CONNECT_TIME_MAX);
        Ok(Self {
            http: http.build().map_err(SetupError::Http)?,
            base_url: format!("{}{path}", settings.url.trim_end_matches('/')),
            authorization,
            key: settings.key.clone().filter(|Secret(key)| !key.is_empty()),
            busy_max: settings.busy_max,
            silence_max: settings.silence_max,
        })
    }

    /// A request to a path below the base URL.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base_url));
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    /// Sends a request until the server has time for it. Only an answer of success comes back.
    ///
    /// # Errors
    /// What the server's answer means.
    pub async fn send(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, AdapterError> {
        match self.ask(request).await? {
            response if response.status().is_success() => Ok(response),
            response => Err(self.error(response).await),
        }
    }

    /// The same, with whatever it answers.
    ///
    /// # Errors
    /// If it cannot be reached, or is busy for too long.
    pub async fn ask(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, AdapterError> {
        let begun = Instant::now();
        loop {
            let response = request().send().await.map_err(|error| self.unreachable(error))?;
            // Cog says 409, OpenAI's servers 429.
            if !matches!(response.status(), StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS) {
                return Ok(response);
            }
            let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let wait = wait.map_or(BUSY_PAUSE, Duration::from_secs).max(BUSY_PAUSE);
            if begun.elapsed().saturating_add(wait) > self.busy_max {
                return Err(AdapterError::Busy("the model's server is busy: ask again later".into()));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// What an answer that is no success means.
    pub async fn error(&self, response: Response) -> AdapterError {
        let status = response.status();
        let body = self.read(response, ERROR_BYTES_MAX).await.unwrap_or_default();
        let (code, message) = self.reason(&body);
        match status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                let message = message.unwrap_or_else(|| format!("the model's server refuses the request ({status})"));
                AdapterError::Refused { code: code.unwrap_or_else(|| "invalid_input".into()), message }
            }
            // In the server's words the key might be.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                AdapterError::Unavailable("the model's server refuses the provider's key".into())
            }
            // Nobody else is told its words, which may be about another client's request.
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                tracing::warn!(%status, message, "a model's server is not ready");
                AdapterError::Unavailable(format!("the model's server answers with {status}"))
            }
            // One request that it fails on says nothing about the next.
            _ => {
                let message = message.map(|message| format!(": {message}")).unwrap_or_default();
                AdapterError::Failed(format!("the model's server answers with {status}{message}"))
            }
        }
    }

    /// Code and message of an error, in whichever form: `{"error": {"message", "code"}}`, `{"error": "…"}`,
    /// `{"detail": "…"}`, `{"detail": [{"loc": […], "msg": "…"}]}`.
    fn reason(&self, body: &[u8]) -> (Option<String>, Option<String>) {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let detail = |value: &serde_json::Value| {
            let part = |part: &serde_json::Value| {
                let place = part["loc"].as_array().and_then(|loc| loc.last()).and_then(|place| place.as_str());
                Some(format!("{}: {}", place.unwrap_or("input"), part["msg"].as_str()?))
            };
            Some(value.as_array()?.iter().filter_map(part).collect::<Vec<_>>().join("; "))
        };
        let message = text(&body["error"]["message"])
            .or_else(|| text(&body["error"]))
            .or_else(|| text(&body["detail"]))
            .or_else(|| detail(&body["detail"]))
            .or_else(|| text(&body["message"]));
        (text(&body["error"]["code"]).map(|code| self.clean(&code)), message.map(|message| self.clean(&message)))
    }

    /// A server's words, as they may be passed on: short, in one line, without the key.
    pub fn clean(&self, text: &str) -> String {
        let text = match &self.key {
            Some(Secret(key)) => text.replace(key, "…"),
            None => text.to_owned(),
        };
        text.chars().take(MESSAGE_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn unreachable(&self, error: reqwest::Error) -> AdapterError {
        let error = error.without_url();
        // What the layers above say is that they failed.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(below) = cause.source() {
            cause = below;
        }
        AdapterError::Unavailable(format!("the model's server cannot be reached: {}", self.clean(&cause.to_string())))
    }

    /// The next bytes of an answer; `None` at its end.
    ///
    /// # Errors
    /// If nothing comes for too long, or the connection breaks.
    pub async fn next(&self, response: &mut Response) -> Result<Option<Bytes>, AdapterError> {
        let silent = || AdapterError::Failed(format!("nothing came for {} s", self.silence_max.as_secs()));
        let piece = tokio::time::timeout(self.silence_max, response.chunk()).await.map_err(|_| silent())?;
        let broken = |error: reqwest::Error| {
            AdapterError::Failed(format!("the answer broke off: {}", self.clean(&error.without_url().to_string())))
        };
        piece.map_err(broken)
    }

    /// A whole answer of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// As [`Server::next`], or if there is more.
    pub async fn read(&self, mut response: Response, bytes_max: usize) -> Result<Vec<u8>, AdapterError> {
        let mut body = Vec::new();
        while let Some(piece) = self.next(&mut response).await? {
            if body.len() + piece.len() > bytes_max {
                return Err(too_large(bytes_max));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

/// Names for people: not too many, not too long, without what a terminal would obey.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    const NAMES_MAX: usize = 20;
    const NAME_CHARS_MAX: usize = 64;
    let short = |name: &String| format!("{:?}", name.chars().take(NAME_CHARS_MAX).collect::<String>());
    let mut names = names.into_iter();
    let mut shown: Vec<_> = names.by_ref().take(NAMES_MAX).map(short).collect();
    if names.next().is_some() {
        shown.push("…".into());
    }
    if shown.is_empty() { "none".into() } else { shown.join(", ") }
}

/// An answer that is larger than the package says.
pub(crate) fn too_large(bytes_max: usize) -> AdapterError {
    AdapterError::Failed(format!("the answer has more than {bytes_max} bytes, which is all that the package allows"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(key: Option<&str>) -> Server {
        Server::new(&Settings { key: key.map(Secret::new), ..Settings::new("http://127.0.0.1:9") }, "/v1").unwrap()
    }

    #[test]
    fn urls_are_of_servers_and_hold_no_password() {
        for (url, base_url) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
            ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
            ("https://example.com/api/v1/", "https://example.com/api/v1"),
        ] {
            assert_eq!(Server::new(&Settings::new(url), "/v1").unwrap().base_url, base_url);
        }
        for url in ["", "127.0.0.1:8000", "ftp://a", "http://a?b=c", "http://a#b", "unix:/a"] {
            assert!(matches!(Server::new(&Settings::new(url), ""), Err(SetupError::Url(_))), "{url}");
        }
        for url in ["http://me:pass@a/v1", "http://me:pass@a:99999/"] {
            let error = Server::new(&Settings::new(url), "").err().unwrap();
            assert!(matches!(error, SetupError::UrlWithPassword) && !error.to_string().contains("pass@"), "{error}");
        }
        let key = Some(Secret::new("a\nb"));
        assert!(matches!(Server::new(&Settings { key, ..Settings::new("http://a") }, ""), Err(SetupError::Key)));
    }

    #[test]
    fn names_are_few_and_short() {
        let names: Vec<_> = (0..30).map(|i| format!("{i}\u{1b}[2J{}", "x".repeat(100))).collect();
        let shown = list(&names);
        assert!(shown.len() < 2_000 && shown.ends_with("…") && !shown.contains('\u{1b}'), "{shown}");
        assert_eq!((list(&[]), list(&["a".to_owned()])), ("none".into(), "\"a\"".into()));
    }

    #[test]
    fn errors_have_their_reasons_in_many_forms_and_never_the_key() {
        let server = server(Some(" sk-secret\n"));
        for (body, code, message) in [
            (
                r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#,
                Some("context_length_exceeded"),
                Some("too long"),
            ),
            (r#"{"error":{"message":"bad","code":400}}"#, None, Some("bad")),
            (r#"{"error":"busy"}"#, None, Some("busy")),
            (r#"{"detail":"no"}"#, None, Some("no")),
            (
                r#"{"detail":[{"loc":["body","input","n"],"msg":"is not a number"},{"msg":"x"}]}"#,
                None,
                Some("n: is not a number; input: x"),
            ),
            (r#"{"message":"Incorrect key sk-secret,\nsorry"}"#, None, Some("Incorrect key …, sorry")),
            ("<html>", None, None),
        ] {
            let (got_code, got_message) = server.reason(body.as_bytes());
            assert_eq!((got_code.as_deref(), got_message.as_deref()), (code, message), "{body}");
        }
        assert_eq!(server.clean(&"þ".repeat(1000)).chars().count(), MESSAGE_CHARS_MAX);
        assert!(!format!("{:?} {:?}", server.key, server.authorization).contains("secret"));
    }
}
