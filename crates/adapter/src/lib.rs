//! Models that a server elsewhere runs: the GPU servers that people have already.
//!
//! A package with runtime `openai/1` or `cog/1` is a description only; where its server is, and with what key it is
//! reached, is the provider's own affair and never leaves it. What such a server answers cannot be re-run bit for
//! bit, so nobody can check it: `verification = "none"`, and never in the open lane. (T-20)
//!
//! - [`server`]: requests to one server: what they may cost, what its errors mean, its key
//! - [`gate`]: how many of them at a time
//! - [`openai`]: a server that speaks OpenAI's API; what clients send and get passes through as it is
//! - [`cog`]: a Cog server; inputs and outputs are those of our interfaces
//! - [`mod@discover`]: what a server is, for who wants to offer it
//!
//! Bounds: [`Settings`] says how many requests run and wait, how long a server may be silent and take in all, and how
//! long one that is busy is asked again; the package says how large an answer may be. Everything can be dropped at any
//! time, which tells the server to stop.

pub mod cog;
pub mod discover;
pub mod gate;
pub mod openai;
pub mod server;

pub use discover::{Discovered, discover};
pub use server::{Secret, Server};

use althing_runtime::{
    PackageError,
    package::{COG_RUNTIME, Manifest, OPENAI_RUNTIME},
};
use cog::Cog;
use gate::Gate;
use openai::OpenAi;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};

/// How often a server is looked at, and one in trouble.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN_IN_TROUBLE: Duration = Duration::from_secs(2);
/// How long a look may take.
const LOOK_TIME_MAX: Duration = Duration::from_secs(10);

/// Why a server gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    /// What was asked cannot be answered, here or elsewhere.
    #[error("{message}")]
    Refused { code: String, message: String },
    /// It has too much to do.
    #[error("{0}")]
    Busy(String),
    /// It is out of reach, or not in a state to answer.
    #[error("{0}")]
    Unavailable(String),
    /// It began and did not come to an end.
    #[error("{0}")]
    Failed(String),
}

impl AdapterError {
    fn refused(message: impl Into<String>) -> Self {
        Self::Refused { code: "invalid_input".into(), message: message.into() }
    }
}

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("{0:?} is not the http or https address of a server")]
    Url(String),
    #[error("the address of a server holds no user or password: name a file or variable with the key instead")]
    UrlWithPassword,
    #[error("the key has characters that no header can have")]
    Key,
    #[error("{name} is at least 1")]
    Zero { name: &'static str },
    #[error("cannot set up the HTTP client: {0}")]
    Http(reqwest::Error),
    #[error("cannot listen on {address} for what the server tells: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("no server can run a package with runtime {0:?}")]
    Runtime(String),
    #[error(transparent)]
    Package(#[from] PackageError),
}

/// How a Cog server is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CogMode {
    /// By a stream of events if the model has one, otherwise by a request that lasts as long as the run.
    #[default]
    Auto,
    /// The server calls back when it is done, so that no connection is idle for long.
    Webhook,
}

/// Where a server is, and how much it may be asked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Base URL; of an OpenAI-compatible server up to `/v1`.
    pub url: String,
    pub key: Option<Secret>,
    /// What the server calls the model, where it has several.
    pub model: Option<String>,
    /// Requests at a time.
    pub concurrency_max: usize,
    /// Requests that wait for their turn; more are turned away.
    pub waiting_max: usize,
    /// How long a server that says that it is busy is asked again.
    pub busy_max: Duration,
    /// How long nothing may come of a stream.
    pub silence_max: Duration,
    /// How long a run may take in all.
    pub run_max: Duration,
    /// Whether clients may name files elsewhere that the server then fetches, from wherever it can reach.
    pub remote_files: bool,
    pub cog_mode: CogMode,
    /// Where a Cog server reaches this process; a free port of loopback if absent.
    pub webhook_listen: Option<SocketAddr>,
    /// Base URL of that address, as the server sees it; `http://` and the address if absent.
    pub webhook_url: Option<String>,
}

impl Settings {
    /// Settings of a server that is on this machine and alone.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            key: None,
            model: None,
            concurrency_max: 8,
            waiting_max: 64,
            busy_max: Duration::from_secs(30),
            silence_max: Duration::from_secs(120),
            run_max: Duration::from_secs(600),
            remote_files: false,
            cog_mode: CogMode::Auto,
            webhook_listen: None,
            webhook_url: None,
        }
    }

    fn check(&self) -> Result<(), SetupError> {
        match self.concurrency_max {
            0 => Err(SetupError::Zero { name: "concurrency_max" }),
            _ => Ok(()),
        }
    }
}

/// Refuses a file that the model's server would have to fetch: a stranger could have it ask the provider's own network.
fn check_file(url: &str) -> Result<(), AdapterError> {
    match url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
        true => Ok(()),
        false => {
            Err(AdapterError::refused("files come with the request, as `data:` URLs: none is fetched from elsewhere"))
        }
    }
}

/// What a server does, for people; where it is stays with its provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterStatus {
    /// `openai/1` or `cog/1`.
    pub runtime: String,
    /// Why it cannot be used at the moment.
    pub trouble: Option<String>,
    pub running: usize,
    pub waiting: usize,
    pub concurrency_max: usize,
}

/// Where the text of a run goes, piece by piece.
pub type Emit<'a> = &'a mut (dyn FnMut(String) + Send);

enum Kind {
    OpenAi(OpenAi),
    Cog(Cog),
}

/// A model on a server elsewhere.
pub struct Adapter {
    runtime: String,
    kind: Kind,
    url: String,
    gate: Gate,
    run_max: Duration,
    /// As of the last look; nobody has looked yet at first.
    trouble: Mutex<Option<String>>,
}

impl Adapter {
    /// The model of a package, on the server of `settings`. Asks it nothing yet.
    ///
    /// # Errors
    /// If the settings cannot be used, or the package is for an engine.
    pub async fn new(manifest: &Manifest, settings: Settings) -> Result<Self, SetupError> {
        manifest.check()?;
        settings.check()?;
        let (url, run_max) = (settings.url.clone(), settings.run_max);
        let gate = Gate::new(settings.concurrency_max, settings.waiting_max);
        let kind = match manifest.runtime.as_str() {
            OPENAI_RUNTIME => Kind::OpenAi(OpenAi::new(manifest, &settings)?),
            COG_RUNTIME => Kind::Cog(Cog::new(manifest, &settings).await?),
            other => return Err(SetupError::Runtime(other.into())),
        };
        let trouble = Mutex::new(Some("nobody has looked at the server yet".into()));
        Ok(Self { runtime: manifest.runtime.clone(), kind, url, gate, run_max, trouble })
    }

    /// Looks at the server, again and again: who asks for work learns at once if there is no use.
    pub async fn watch(&self) {
        loop {
            let pause = match self.look().await {
                None => LOOK_AGAIN,
                Some(_) => LOOK_AGAIN_IN_TROUBLE,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks at the server; what is wrong with it.
    pub async fn look(&self) -> Option<String> {
        let look = async {
            match &self.kind {
                Kind::OpenAi(openai) => openai.look().await,
                Kind::Cog(cog) => cog.look().await,
            }
        };
        let seen = tokio::time::timeout(LOOK_TIME_MAX, look).await;
        let trouble = match seen {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("the server did not answer within {} s", LOOK_TIME_MAX.as_secs())),
        };
        self.note(trouble.clone());
        trouble
    }

    fn note(&self, trouble: Option<String>) {
        let mut known = self.trouble.lock();
        if *known != trouble {
            match &trouble {
                Some(trouble) => tracing::warn!(url = self.url, "no use at the moment: {trouble}"),
                None => tracing::info!(url = self.url, "the server is ready"),
            }
            *known = trouble;
        }
    }

    /// Whether it would take work now.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), AdapterError> {
        if let Some(trouble) = self.trouble.lock().clone() {
            return Err(AdapterError::Unavailable(trouble));
        }
        self.gate.has_room()
    }

    /// What it does.
    pub fn status(&self) -> AdapterStatus {
        let (running, waiting) = self.gate.count();
        AdapterStatus {
            runtime: self.runtime.clone(),
            trouble: self.trouble.lock().clone(),
            running,
            waiting,
            concurrency_max: self.gate.concurrency_max(),
        }
    }

    /// Has the server run the model; text goes to `emit` as it comes.
    ///
    /// # Errors
    /// Why there is no output.
    pub async fn run(&self, input: &[u8], seed: u64, emit: Emit<'_>) -> Result<Vec<u8>, AdapterError> {
        let _place = self.gate.enter().await?;
        let run = async {
            match &self.kind {
                Kind::OpenAi(openai) => openai.run(input, emit).await,
                Kind::Cog(cog) => cog.run(input, seed, emit).await,
            }
        };
        let seconds = self.run_max.as_secs();
        let late = || AdapterError::Failed(format!("the server took longer than {seconds} s"));
        let result = tokio::time::timeout(self.run_max, run).await.map_err(|_| late()).flatten();
        if let Err(AdapterError::Unavailable(trouble)) = &result {
            self.note(Some(trouble.clone()));
        }
        result
    }
}
