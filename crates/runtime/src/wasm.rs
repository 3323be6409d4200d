//! Models that are WebAssembly guests, in the sandbox: whatever their maker wrote, within the package's limits.
//!
//! What a guest emits becomes the output of its package's interface:
//!
//! - `chat`: the text of the answer, as it is made. Bytes that are no UTF-8 become U+FFFD.
//! - `json`: JSON, exactly as the guest wrote it; something else is a failure.
//! - `image`, `speech`: a file that browsers show or play; something else is a failure.
//!
//! A guest that refuses, or fails, gives the refusal `{"error":{"code":"…","message":"…"}}`, an output like any
//! other: `invalid_input` in the guest's words, or `model_failed`.

use crate::{
    chat::{ChatOutput, Finish, Refusal},
    engine::{Engine, RunError},
    interface::Interface,
    media::{audio_type, image_type},
    package::{self, Files, Manifest, Package, PackageError},
};
use althing_exact::Plan;
use althing_sandbox::{Config, Failure, Guest, Limits, NoResult, Ran, Stop};
use serde::{Deserialize, Serialize, de::IgnoredAny};

/// The output of a model that refuses, or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalOutput {
    pub error: Refusal,
}

impl RefusalOutput {
    /// The refusal that these bytes are, if they are one.
    pub fn parse(output: &[u8]) -> Option<Self> {
        serde_json::from_slice(output).ok()
    }

    fn bytes(code: &str, message: impl Into<String>) -> Vec<u8> {
        let refusal = Self { error: Refusal { code: code.into(), message: message.into() } };
        serde_json::to_vec(&refusal).expect("strings are always JSON")
    }
}

/// A guest as an engine.
pub struct WasmEngine {
    guest: Guest,
    interface: Interface,
}

/// Memory that a guest's `init` may take beside its weights, bytes; 0 for other packages.
pub fn init_bytes_max(manifest: &Manifest) -> u64 {
    match (&manifest.files, limits(&manifest.limits)) {
        (Files::Wasm(_), Ok(limits)) => limits.memory_bytes_max.saturating_add(limits.cache_bytes_max),
        // What asks for more than anybody may is not loaded.
        _ => 0,
    }
}

/// What a package asks for, if anybody may.
fn limits(asked: &package::Limits) -> Result<Limits, PackageError> {
    let (usual, most) = (Limits::default(), Limits::MOST);
    let within = |limit, asked: Option<u64>, usual: u64, max: u64| match asked.unwrap_or(usual) {
        got if got > max => Err(PackageError::Limit { limit, got, max }),
        got => Ok(got),
    };
    Ok(Limits {
        memory_bytes_max: within(
            "memory_bytes_max",
            asked.memory_bytes_max,
            usual.memory_bytes_max,
            most.memory_bytes_max,
        )?,
        cache_bytes_max: within("cache_bytes_max", asked.cache_bytes_max, usual.cache_bytes_max, most.cache_bytes_max)?,
        init_fuel_max: within("init_fuel_max", asked.init_fuel_max, usual.init_fuel_max, most.init_fuel_max)?,
        run_fuel_max: within("run_fuel_max", asked.run_fuel_max, usual.run_fuel_max, most.run_fuel_max)?,
        output_bytes_max: within("output_bytes_max", Some(asked.output_bytes_max), 0, most.output_bytes_max)?,
    })
}

/// What a run used, and what it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestRun {
    pub output: Vec<u8>,
    /// The same on every machine; `None` where the run failed.
    pub fuel: Option<u64>,
}

impl WasmEngine {
    /// Loads a package whose runtime is `wasm/1`.
    ///
    /// # Errors
    /// If it is another one, or its module is not run.
    pub fn load(package: &Package, plan: Plan) -> Result<Self, PackageError> {
        let manifest = &package.manifest;
        let interface = match (manifest.runtime.as_str(), manifest.interface()?) {
            ("wasm/1", interface) if interface != Interface::Embedding => interface,
            (runtime, interface) => {
                return Err(PackageError::UnknownRuntime(format!("{runtime} ({})", interface.name())));
            }
        };
        let Files::Wasm(names) = &manifest.files else {
            return Err(PackageError::WrongFiles(manifest.runtime.clone()));
        };
        let module = package.file(&names.module)?;
        let own = |name: &String| name != "model.toml" && *name != names.module;
        let files = package.files().iter().filter(|(name, _)| own(name));
        let files = althing_sandbox::Files::new(files.map(|(name, bytes)| (name.clone(), bytes.clone())));
        let files = files.with_weights(&names.weights)?;
        let config = Config { plan, ..Config::new(limits(&package.manifest.limits)?) };
        Ok(Self { guest: Guest::new(module, files, config)?, interface })
    }

    /// What `init` used.
    pub fn init_fuel(&self) -> u64 {
        self.guest.init_fuel()
    }

    /// What the guest said about itself in `init`.
    pub fn log(&self) -> &str {
        self.guest.log()
    }

    /// As [`Engine::run`], and says what the run used.
    ///
    /// # Errors
    /// If there is no result.
    pub fn run_metered(
        &self,
        input: &[u8],
        seed: u64,
        emit: &mut dyn FnMut(&str) -> bool,
    ) -> Result<GuestRun, RunError> {
        let (mut pieces, mut text, mut wanted) = (Utf8Pieces::default(), String::new(), true);
        let chat = self.interface == Interface::Chat;
        let mut say = |piece: String| {
            if chat && !piece.is_empty() {
                wanted &= emit(&piece);
                text.push_str(&piece);
            }
            wanted
        };
        let failed = |code, why| Ok(GuestRun { output: RefusalOutput::bytes(code, why), fuel: None });
        match self.guest.run(input, seed, &mut |bytes| say(pieces.take(bytes))) {
            Ok(ran) => {
                if !say(pieces.finish()) {
                    return Err(RunError::GivenUp);
                }
                let fuel = Some(ran.fuel);
                Ok(GuestRun { output: self.output(ran, text), fuel })
            }
            Err(Stop::Failed(Failure::Refused(why))) => failed("invalid_input", why),
            Err(Stop::Failed(failure)) => failed("model_failed", failure.to_string()),
            Err(Stop::NoResult(NoResult::GivenUp)) => Err(RunError::GivenUp),
            Err(Stop::NoResult(why)) => Err(RunError::Engine(why.to_string())),
        }
    }

    /// The output of a guest that came to its end.
    fn output(&self, ran: Ran, text: String) -> Vec<u8> {
        let finish = ran.finish.unwrap_or_default();
        match self.interface {
            Interface::Chat => ChatOutput::Answer {
                text,
                finish_reason: if finish.by_length { Finish::Length } else { Finish::Stop },
                prompt_tokens: finish.prompt_tokens,
                completion_tokens: finish.completion_tokens,
            }
            .to_bytes(),
            Interface::Image if image_type(&ran.output).is_some() => ran.output,
            Interface::Image => RefusalOutput::bytes("model_failed", "the model gave something that is not a picture"),
            Interface::Speech if audio_type(&ran.output).is_some() => ran.output,
            Interface::Speech => RefusalOutput::bytes("model_failed", "the model gave something that is not a sound"),
            _ if serde_json::from_slice::<IgnoredAny>(&ran.output).is_ok() => ran.output,
            _ => RefusalOutput::bytes("model_failed", "the model gave something that is not JSON"),
        }
    }
}

impl Engine for WasmEngine {
    fn interface(&self) -> Interface {
        self.interface
    }

    fn run(&self, input: &[u8], seed: u64, emit: &mut dyn FnMut(&str) -> bool) -> Result<Vec<u8>, RunError> {
        self.run_metered(input, seed, emit).map(|ran| ran.output)
    }

    fn measure(&self, _input: &[u8]) -> Option<(usize, usize)> {
        None
    }

    fn weights_bytes(&self) -> u64 {
        self.guest.weights_bytes()
    }

    fn run_bytes_max(&self) -> u64 {
        self.guest.run_bytes_max()
    }
}

/// Bytes that come in pieces, as text that comes in pieces: all pieces together are what all bytes
/// together are as text.
#[derive(Debug, Default)]
struct Utf8Pieces {
    /// The beginning of a letter whose end has not come yet.
    pending: Vec<u8>,
}

impl Utf8Pieces {
    fn take(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let (mut text, mut rest) = (String::new(), &self.pending[..]);
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(wrong) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[wrong..];
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_of_text_are_the_text(
            letters in prop::collection::vec(prop::sample::select(vec!["a", "þ", "€", "😀", "\u{fffd}"]), 0..12),
            damage in prop::collection::vec((0..40usize, any::<u8>()), 0..3),
            cuts in prop::collection::vec(0..40usize, 0..6),
        ) {
            let mut bytes = letters.concat().into_bytes();
            for (at, byte) in damage {
                if let Some(damaged) = bytes.get_mut(at) {
                    *damaged = byte;
                }
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let mut pieces = Utf8Pieces::default();
            let mut text: String = cuts.windows(2).map(|cut| pieces.take(&bytes[cut[0]..cut[1]])).collect();
            text += &pieces.finish();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
