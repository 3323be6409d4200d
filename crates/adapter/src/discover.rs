//! What a server is, for who wants to offer its model.

use crate::{
    AdapterError, LOOK_TIME_MAX, Server, Settings, SetupError,
    cog::{self, Schema},
    openai,
    server::list,
};
use althing_runtime::{
    Interface,
    package::{COG_RUNTIME, OPENAI_RUNTIME, model_name},
};
use std::path::Path;

/// A server and its model.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovered {
    pub runtime: &'static str,
    /// What it looks like; nobody can be sure.
    pub interface: Interface,
    /// A name that a registry takes.
    pub name: String,
    /// What the server calls the model.
    pub model: Option<String>,
    /// What a Cog model takes, by its own names; `None` if its server does not say.
    pub inputs: Option<Vec<String>>,
}

/// Why a server is not known.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("{url} is neither a Cog server ({cog}) nor one that speaks OpenAI's API ({openai})")]
    Neither { url: String, cog: AdapterError, openai: AdapterError },
    #[error("{url} did not answer within {seconds} s")]
    Silent { url: String, seconds: u64 },
    #[error("{url} has no model {model:?}; it has {has}")]
    NoModel { url: String, model: String, has: String },
    #[error("{url} has several models; say which of them: {has}")]
    Several { url: String, has: String },
}

/// Asks a server what it is.
///
/// # Errors
/// If it cannot be asked, or is nothing that is known here.
pub async fn discover(settings: &Settings) -> Result<Discovered, DiscoverError> {
    let silent = |_| DiscoverError::Silent { url: settings.url.clone(), seconds: 2 * LOOK_TIME_MAX.as_secs() };
    tokio::time::timeout(2 * LOOK_TIME_MAX, look(settings)).await.map_err(silent)?
}

async fn look(settings: &Settings) -> Result<Discovered, DiscoverError> {
    let url = settings.url.clone();
    let server = Server::new(settings, "")?;
    let cog_error = match cog::health(&server).await {
        Ok(()) => {
            let schema = cog::schema(&server).await.ok().flatten();
            return Ok(Discovered {
                runtime: COG_RUNTIME,
                interface: schema.as_ref().map_or(Interface::Json, Schema::interface),
                name: settings.model.as_deref().map_or_else(|| "cog-model".into(), name_of),
                model: settings.model.clone(),
                inputs: schema.map(|schema| schema.inputs.into_keys().collect()),
            });
        }
        Err(error) => error,
    };
    let server = Server::new(settings, openai::DEFAULT_PATH)?;
    let names = match openai::models(&server).await {
        Ok(names) => names,
        Err(openai) => return Err(DiscoverError::Neither { url, cog: cog_error, openai }),
    };
    let model = match (settings.model.clone(), names) {
        (Some(model), Some(names)) if !names.contains(&model) => {
            return Err(DiscoverError::NoModel { url, model, has: list(&names) });
        }
        (Some(model), _) => model,
        (None, Some(names)) if names.len() == 1 => names.into_iter().next().unwrap_or_default(),
        (None, Some(names)) => return Err(DiscoverError::Several { url, has: list(&names) }),
        (None, None) => {
            let openai = AdapterError::Unavailable("it lists no models".into());
            return Err(DiscoverError::Neither { url, cog: cog_error, openai });
        }
    };
    Ok(Discovered {
        runtime: OPENAI_RUNTIME,
        interface: Interface::Chat,
        name: name_of(&model),
        model: Some(model),
        inputs: None,
    })
}

/// `meta-llama/Llama-3.gguf` is called `llama-3`.
fn name_of(model: &str) -> String {
    let last = model.trim_end_matches('/').rsplit('/').next().unwrap_or(model);
    // Only this extension goes: what follows a point may be a version.
    model_name(Path::new(&format!("{}.gguf", last.strip_suffix(".gguf").unwrap_or(last))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_a_registry_takes() {
        for (model, name) in [
            ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
            ("/models/llama.gguf", "llama"),
            ("qwen2.5:7b", "qwen2.5-7b"),
            ("þ", "-"),
        ] {
            assert_eq!(name_of(model), name);
        }
    }
}
