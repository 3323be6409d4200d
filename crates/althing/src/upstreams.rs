//! Servers elsewhere that run models for a provider: their settings, and packages that describe them; `adapters.md`.

use crate::output;
use althing_adapter::{Adapter, CogMode, Discovered, Secret, Settings, discover};
use althing_runtime::{
    Interface, Package,
    package::{COG_RUNTIME, Manifest},
};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// Largest answer where the package's maker does not say, bytes.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// `[upstreams.NAME]` in `provider.toml`: the server that runs the registered model of this name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// Base URL; of an OpenAI-compatible server up to `/v1`.
    pub url: String,
    /// What the server calls the model, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// File with the key for the server, in the provider's home or with a path of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Or the environment variable that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// Requests at a time; 8, or 1 for Cog, unless it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_max: Option<usize>,
    /// Requests that wait for their turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_max: Option<usize>,
    /// How long a server that says that it is busy is asked again, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_ms_max: Option<u64>,
    /// How long nothing may come of a stream, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_ms_max: Option<u64>,
    /// How long a run may take in all, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_ms_max: Option<u64>,
    /// Whether clients may name files elsewhere that the server then fetches, from wherever it can reach.
    #[serde(default)]
    pub remote_files: bool,
    /// Have a Cog server call back here when it is done, instead of keeping a connection open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<SocketAddr>,
    /// Base URL of that address as the server sees it; `http://` and the address if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_url: Option<String>,
}

impl UpstreamSettings {
    /// The server at a URL, and nothing else said.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            model: None,
            key_file: None,
            key_env: None,
            concurrency_max: None,
            waiting_max: None,
            busy_ms_max: None,
            silence_ms_max: None,
            run_ms_max: None,
            remote_files: false,
            webhook: None,
            webhook_url: None,
        }
    }

    /// What an adapter for a package of this runtime is told; `home` is where the key's file is.
    ///
    /// # Errors
    /// If the key is not there.
    pub fn settings(&self, runtime: &str, home: &Path) -> Result<Settings> {
        let key = match (&self.key_file, &self.key_env) {
            (Some(_), Some(_)) => anyhow::bail!("key_file and key_env are both there: say one of them"),
            (Some(file), None) => {
                let path = home.join(file);
                let text = fs::read_to_string(&path);
                Some(Secret::new(&text.with_context(|| format!("cannot read the key in {}", path.display()))?))
            }
            (None, Some(name)) => {
                let text = std::env::var(name);
                Some(Secret::new(&text.with_context(|| format!("the key's environment variable {name}"))?))
            }
            (None, None) => None,
        };
        let usual = Settings::new(&self.url);
        let duration = |ms: Option<u64>, usual| ms.map_or(usual, Duration::from_millis);
        let concurrency_usual = if runtime == COG_RUNTIME { 1 } else { usual.concurrency_max };
        Ok(Settings {
            key,
            model: self.model.clone(),
            concurrency_max: self.concurrency_max.unwrap_or(concurrency_usual),
            waiting_max: self.waiting_max.unwrap_or(usual.waiting_max),
            busy_max: duration(self.busy_ms_max, usual.busy_max),
            silence_max: duration(self.silence_ms_max, usual.silence_max),
            run_max: duration(self.run_ms_max, usual.run_max),
            remote_files: self.remote_files,
            cog_mode: if self.webhook.is_some() { CogMode::Webhook } else { CogMode::Auto },
            webhook_listen: self.webhook,
            webhook_url: self.webhook_url.clone(),
            ..usual
        })
    }
}

/// `--upstream [MODEL=]URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamArg {
    model: Option<String>,
    url: String,
}

impl FromStr for UpstreamArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (model, url) = match text.split_once('=') {
            Some((model, url)) if !model.contains("://") => (Some(model.to_owned()), url),
            _ => (None, text),
        };
        match url.contains("://") {
            true => Ok(Self { model, url: url.to_owned() }),
            false => Err("write URL, or MODEL=URL with the name of a registered model".into()),
        }
    }
}

/// The servers of a provider, by the names of the models that they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstreams {
    pub by_model: BTreeMap<String, UpstreamSettings>,
    /// Of models that are named nowhere.
    pub others: Option<UpstreamSettings>,
}

impl Upstreams {
    /// Those of the settings, and those of the command line, which come first.
    ///
    /// # Errors
    /// If two servers are for the same models.
    pub fn new(settings: &BTreeMap<String, UpstreamSettings>, args: &[UpstreamArg]) -> Result<Self> {
        let mut upstreams = Self { by_model: settings.clone(), others: None };
        for UpstreamArg { model, url } in args {
            match model {
                Some(model) => match upstreams.by_model.get_mut(model) {
                    Some(settings) => settings.url.clone_from(url),
                    None => drop(upstreams.by_model.insert(model.clone(), UpstreamSettings::new(url))),
                },
                None => {
                    ensure!(upstreams.others.is_none(), "--upstream URL is there twice: say MODEL=URL");
                    upstreams.others = Some(UpstreamSettings::new(url));
                }
            }
        }
        Ok(upstreams)
    }

    /// The adapter for a registered model.
    ///
    /// # Errors
    /// If nobody says where its server is, or that cannot be used.
    pub async fn adapter(&self, name: &str, manifest: &Manifest, home: &Path) -> Result<Adapter> {
        let upstream = self.by_model.get(name).or(self.others.as_ref()).with_context(|| {
            format!(
                "{name} is run by a server elsewhere ({}): say where with --upstream {name}=URL, or in provider.toml: \
                 [upstreams.{name}] url = \"…\"",
                manifest.runtime
            )
        })?;
        let settings = upstream.settings(&manifest.runtime, home).with_context(|| format!("the server of {name}"))?;
        Adapter::new(manifest, settings).await.with_context(|| format!("the server of {name}"))
    }
}

/// A server to be looked at.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// What the server calls the model, where it has several.
    #[arg(long, value_name = "NAME")]
    pub upstream_model: Option<String>,
    /// The environment variable with the key for the server.
    #[arg(long, value_name = "VARIABLE")]
    pub upstream_key_env: Option<String>,
}

impl ServerArgs {
    /// Settings for the server at a URL.
    pub fn at(&self, url: &str) -> UpstreamSettings {
        let (model, key_env) = (self.upstream_model.clone(), self.upstream_key_env.clone());
        UpstreamSettings { model, key_env, ..UpstreamSettings::new(url) }
    }
}

/// `model adapt`.
#[derive(Debug, Args)]
pub struct AdaptArgs {
    /// Base URL of a Cog server, or of one that speaks OpenAI's API, up to `/v1`. It stays with you.
    url: String,
    /// Directory of the new package.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// The package's name. [default: what the server calls the model]
    #[arg(long)]
    name: Option<String>,
    /// What the model takes and gives, if it is not what it looks like: chat, embedding, json, image or speech.
    #[arg(long, value_parser = interface)]
    interface: Option<Interface>,
    #[command(flatten)]
    server: ServerArgs,
}

fn interface(name: &str) -> Result<Interface, String> {
    Interface::named(name).ok_or_else(|| format!("one of {}", Interface::ALL.map(Interface::name).join(", ")))
}

/// Makes a package that describes a server's model.
///
/// # Errors
/// If the server is none that is known, or the directory is there.
pub async fn adapt(args: AdaptArgs, json: bool) -> Result<()> {
    let AdaptArgs { url, output, name, interface, server } = args;
    ensure!(!output.exists(), "{} exists already", output.display());
    let (package, found) = describe(&server.at(&url), name, interface).await?;
    let text = package.file("model.toml")?;
    fs::create_dir_all(&output)
        .and_then(|()| fs::write(output.join("model.toml"), text))
        .with_context(|| format!("cannot write {}", output.display()))?;
    let data = serde_json::json!({
        "cid": package.cid, "output": output, "manifest": package.manifest, "inputs": found.inputs,
    });
    output::data(json, &data, |_| {
        println!("{}", output.display());
        let Manifest { name, interface, runtime, .. } = &package.manifest;
        eprintln!("{name}: {interface}, run by a server elsewhere ({runtime}); nobody can check its answers");
        if let Some(inputs) = &found.inputs {
            eprintln!("the model takes: {}", inputs.join(", "));
        }
        eprintln!("look model.toml over: it becomes public. Then publish and serve it:");
        eprintln!("  althing model publish {name} {} --home HOME --wallet WALLET", output.display());
        eprintln!("  althing provider --home HOME --upstream {name}={url}");
    })
}

/// A package of a server's model.
///
/// # Errors
/// If the server is none that is known.
pub async fn describe(
    upstream: &UpstreamSettings,
    name: Option<String>,
    interface: Option<Interface>,
) -> Result<(Package, Discovered)> {
    let found = discover(&upstream.settings("", Path::new(""))?).await?;
    let interface = interface.unwrap_or(found.interface);
    let name = name.unwrap_or_else(|| found.name.clone());
    let description = match &found.model {
        Some(model) => format!("{model}, on a server of the provider's"),
        None => format!("{name}, on a server of the provider's"),
    };
    let text = format!(
        "name = {name:?}\ndescription = {description:?}\ninterface = {:?}\nruntime = {:?}\nverification = \"none\"\n\
         licence = \"unknown\"\n\n[limits]\noutput_bytes_max = {OUTPUT_BYTES_MAX}\n",
        interface.name(),
        found.runtime
    );
    let package = Package::from_files(BTreeMap::from([("model.toml".to_owned(), text.into_bytes())]))?;
    althing_runtime::check(&package)?;
    Ok((package, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_on_the_command_line_for_one_model_or_for_all() {
        let arg = |text: &str| text.parse::<UpstreamArg>();
        let named = arg("my-model=http://a/v1?x=y").unwrap();
        assert_eq!((named.model.as_deref(), named.url.as_str()), (Some("my-model"), "http://a/v1?x=y"));
        assert_eq!(arg("http://a/v1?x=y").unwrap().model, None);
        assert!(arg("my-model").is_err() && arg("my-model=8000").is_err());
        let settings: BTreeMap<String, UpstreamSettings> =
            toml::from_str("[one]\nurl = \"http://a\"\nkey_env = \"KEY\"\nconcurrency_max = 2\n").unwrap();
        let args = [arg("one=http://b").unwrap(), arg("http://c").unwrap()];
        let upstreams = Upstreams::new(&settings, &args).unwrap();
        let one = &upstreams.by_model["one"];
        assert_eq!((one.url.as_str(), one.key_env.as_deref(), one.concurrency_max), ("http://b", Some("KEY"), Some(2)));
        assert_eq!(upstreams.others.unwrap().url, "http://c");
        assert!(Upstreams::new(&settings, &[arg("http://c").unwrap(), arg("http://d").unwrap()]).is_err());
    }

    #[test]
    fn keys_come_from_files_or_variables_and_are_not_shown() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("key"), "sk-secret\n").unwrap();
        let upstream = UpstreamSettings { key_file: Some("key".into()), ..UpstreamSettings::new("http://a") };
        let settings = upstream.settings("openai/1", home.path()).unwrap();
        assert_eq!(settings.key, Some(Secret::new("sk-secret")));
        assert!(!format!("{settings:?}").contains("secret"));
        assert_eq!(
            (settings.concurrency_max, upstream.settings("cog/1", home.path()).unwrap().concurrency_max),
            (8, 1)
        );
        let missing = UpstreamSettings { key_file: Some("none".into()), ..UpstreamSettings::new("http://a") };
        assert!(missing.settings("", home.path()).unwrap_err().to_string().contains("none"));
    }
}
