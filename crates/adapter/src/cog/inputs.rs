//! From the inputs of our interfaces to those of a Cog model, by name.

use super::Schema;
use crate::{AdapterError, check_file, server::list};
use althing_runtime::{
    ChatInput, ChatMessage, ImageInput, Interface, PackageError, Role, SpeechInput,
    media::IMAGE_SIDE_DEFAULT,
    package::{CogNames, Manifest, Template},
};
use serde_json::{Map, Value, json};

/// Seeds there are integers of 32 bits.
const SEED_MASK: u64 = 0x7fff_ffff;

/// How much the model must take something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing can be asked without it.
    Always,
    /// The client asked for it: leaving it out would give another answer.
    Asked,
    /// Passed if the model is known to take it.
    Offered,
}

/// How inputs are written for one model.
pub(crate) struct Inputs {
    interface: Interface,
    names: CogNames,
    markers: Option<Template>,
    max_tokens_default: usize,
    /// Whether the server may be made to fetch files from elsewhere.
    remote_files: bool,
}

impl Inputs {
    pub fn new(manifest: &Manifest, remote_files: bool) -> Result<Self, PackageError> {
        Ok(Self {
            interface: manifest.interface()?,
            names: manifest.cog.clone(),
            markers: manifest.chat.clone(),
            max_tokens_default: manifest.limits.max_tokens_default,
            remote_files,
        })
    }

    /// The model's input for one of our interface.
    pub fn read(&self, input: &[u8], seed: u64, schema: Option<&Schema>) -> Result<Value, AdapterError> {
        let not = |what: &str| AdapterError::refused(format!("the input is not {what}"));
        let mut taken = Taken { names: &self.names, schema, input: Map::new() };
        match self.interface {
            Interface::Chat => {
                let input = serde_json::from_slice(input).map_err(|_| not("a chat input"))?;
                self.conversation(&mut taken, input)?;
            }
            Interface::Image => {
                let ImageInput { prompt, width, height } =
                    serde_json::from_slice(input).map_err(|_| not("an image input"))?;
                taken.put("prompt", json!(prompt), Need::Always)?;
                for (name, side) in [("width", width), ("height", height)] {
                    // The usual size is nobody's wish.
                    let need = if side == IMAGE_SIDE_DEFAULT { Need::Offered } else { Need::Asked };
                    taken.put(name, json!(side), need)?;
                }
            }
            Interface::Speech => {
                let SpeechInput { text, voice, format, speed, instructions } =
                    serde_json::from_slice(input).map_err(|_| not("a speech input"))?;
                taken.put("text", json!(text), Need::Always)?;
                for (name, value) in [
                    ("voice", voice.map(Value::from)),
                    ("format", format.map(Value::from)),
                    ("speed", speed.map(Value::from)),
                    ("instructions", instructions.map(Value::from)),
                ] {
                    taken.put_asked(name, value)?;
                }
            }
            Interface::Json | Interface::Embedding => {
                let input: Map<String, Value> = serde_json::from_slice(input).map_err(|_| not("a JSON object"))?;
                if !self.remote_files {
                    check_files(&input, schema)?;
                }
                return Ok(Value::Object(input));
            }
        }
        taken.put("seed", json!(seed & SEED_MASK), Need::Offered)?;
        Ok(Value::Object(taken.input))
    }

    fn conversation(&self, taken: &mut Taken<'_>, input: ChatInput) -> Result<(), AdapterError> {
        let ChatInput { messages, max_tokens, temperature, top_p, stop } = input;
        match &self.markers {
            Some(markers) => taken.put("prompt", json!(with_markers(markers, &messages)?), Need::Always)?,
            None => {
                let (system, turns): (Vec<_>, Vec<_>) =
                    messages.iter().partition(|message| message.role == Role::System);
                let system = system.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n");
                let mut prompt = transcript(&turns)?;
                if !system.is_empty() && !taken.put("system_prompt", json!(system), Need::Offered)? {
                    prompt = format!("{system}\n\n{prompt}");
                }
                taken.put("prompt", json!(prompt), Need::Always)?
            }
        };
        match max_tokens {
            Some(_) => taken.put_asked("max_tokens", max_tokens.map(Value::from))?,
            None => drop(taken.put("max_tokens", json!(self.max_tokens_default), Need::Offered)?),
        }
        taken.put_asked("temperature", temperature.map(Value::from))?;
        taken.put_asked("top_p", top_p.map(Value::from))?;
        if !stop.is_empty() {
            let is_list = taken.name("stop").zip(taken.schema).is_some_and(|(name, schema)| schema.is_list(&name));
            // As Replicate's models take several.
            let value = if is_list { json!(stop) } else { json!(stop.join(",")) };
            taken.put("stop", value, Need::Asked)?;
        }
        Ok(())
    }
}

/// What a model takes, and gets.
struct Taken<'a> {
    names: &'a CogNames,
    schema: Option<&'a Schema>,
    input: Map<String, Value>,
}

impl Taken<'_> {
    /// What the model calls it; `None` if it does not take it, or nobody knows whether.
    fn name(&self, ours: &str) -> Option<String> {
        if let Some(name) = self.names.inputs.get(ours) {
            return Some(name.clone());
        }
        self.schema?.inputs.contains_key(ours).then(|| ours.to_owned())
    }

    /// Whether the model gets it.
    fn put(&mut self, ours: &str, value: Value, need: Need) -> Result<bool, AdapterError> {
        let name = match (self.name(ours), need, self.schema) {
            (Some(name), ..) => name,
            (None, Need::Offered, _) => return Ok(false),
            // Without a schema the model may well take it.
            (None, _, None) => ours.to_owned(),
            (None, Need::Asked, Some(_)) => {
                return Err(AdapterError::refused(format!("this model does not take `{ours}`: leave it out")));
            }
            (None, Need::Always, Some(schema)) => {
                return Err(AdapterError::Unavailable(format!(
                    "the package does not say which of the model's inputs is `{ours}`: {}",
                    list(schema.inputs.keys())
                )));
            }
        };
        self.input.insert(name, value);
        Ok(true)
    }

    fn put_asked(&mut self, ours: &str, value: Option<Value>) -> Result<(), AdapterError> {
        match value {
            Some(value) => self.put(ours, value, Need::Asked).map(drop),
            None => Ok(()),
        }
    }
}

/// Refuses files that the server would fetch. Where nobody says which inputs are files, a text that is an address is
/// taken for one.
fn check_files(input: &Map<String, Value>, schema: Option<&Schema>) -> Result<(), AdapterError> {
    for (name, value) in input {
        let texts = match value {
            Value::Array(items) => &items[..],
            value => std::slice::from_ref(value),
        };
        for text in texts.iter().filter_map(Value::as_str) {
            let is_file = match schema {
                Some(schema) => schema.is_file(name),
                None => {
                    text.split_once("://").is_some_and(|(scheme, _)| scheme.chars().all(|c| c.is_ascii_alphanumeric()))
                }
            };
            if is_file {
                check_file(text)?;
            }
        }
    }
    Ok(())
}

/// One message as it is; more of them with who said what, up to where the answer goes on.
fn transcript(turns: &[&ChatMessage]) -> Result<String, AdapterError> {
    match turns {
        [] => Err(AdapterError::refused("there is no message")),
        [ChatMessage { role: Role::User, content }] => Ok(content.clone()),
        turns => {
            let said = |turn: &&ChatMessage| match turn.role {
                Role::Assistant => format!("Assistant: {}\n\n", turn.content),
                Role::User | Role::System => format!("User: {}\n\n", turn.content),
            };
            Ok(turns.iter().map(said).collect::<String>() + "Assistant:")
        }
    }
}

fn with_markers(markers: &Template, messages: &[ChatMessage]) -> Result<String, AdapterError> {
    let mut prompt = String::new();
    for message in messages {
        let [before, after] = match message.role {
            Role::System => {
                let none = || AdapterError::refused("this model takes no system messages");
                markers.system.as_ref().ok_or_else(none)?
            }
            Role::User => &markers.user,
            Role::Assistant => &markers.assistant,
        };
        prompt += &format!("{before}{}{after}", message.content);
    }
    Ok(prompt + &markers.answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(interface: Interface, names: &[(&str, &str)]) -> Inputs {
        let inputs = names.iter().map(|(ours, theirs)| ((*ours).into(), (*theirs).into())).collect();
        Inputs { interface, names: CogNames { inputs }, markers: None, max_tokens_default: 64, remote_files: false }
    }

    fn schema(names: &[&str]) -> Schema {
        let said =
            |name: &&str| ((*name).to_owned(), if *name == "stops" { json!({"type": "array"}) } else { json!({}) });
        Schema { inputs: names.iter().map(said).collect(), ..Schema::default() }
    }

    fn said(role: Role, content: &str) -> ChatMessage {
        ChatMessage { role, content: content.into() }
    }

    #[test]
    fn a_model_gets_what_it_takes_under_its_own_names() {
        let chat = ChatInput {
            messages: vec![said(Role::System, "Be short."), said(Role::User, "Hi")],
            temperature: Some(0.5),
            stop: vec!["a".into(), "b".into()],
            ..ChatInput::default()
        };
        let all = ["prompt", "system_prompt", "max_new_tokens", "temperature", "stop", "seed"];
        let names = [("max_tokens", "max_new_tokens")];
        let (seed, image) = (u64::MAX, ImageInput { prompt: "a fox".into(), width: 256, height: 512 }.to_bytes());
        let usual = ImageInput { prompt: "a fox".into(), width: 512, height: 512 }.to_bytes();
        let speech = SpeechInput { text: "hi".into(), voice: None, format: None, speed: None, instructions: None };
        for (interface, names, schema, input, expected) in [
            (
                Interface::Chat,
                &names[..],
                Some(schema(&all)),
                chat.to_bytes(),
                json!({"prompt": "Hi", "system_prompt": "Be short.", "max_new_tokens": 64, "temperature": 0.5,
                       "stop": "a,b", "seed": SEED_MASK}),
            ),
            // A system message has a place even so, and a list may stay one.
            (
                Interface::Chat,
                &[("stop", "stops")][..],
                Some(schema(&["prompt", "temperature", "stops"])),
                chat.to_bytes(),
                json!({"prompt": "Be short.\n\nHi", "temperature": 0.5, "stops": ["a", "b"]}),
            ),
            // Without a schema it gets what there is, under our names.
            (
                Interface::Chat,
                &[],
                None,
                chat.to_bytes(),
                json!({"prompt": "Be short.\n\nHi", "temperature": 0.5, "stop": "a,b"}),
            ),
            (
                Interface::Image,
                &[("prompt", "text")],
                Some(schema(&["text", "width", "seed"])),
                image.clone(),
                json!({"text": "a fox", "width": 256, "seed": SEED_MASK}),
            ),
            (Interface::Image, &[], Some(schema(&["prompt"])), usual.clone(), json!({"prompt": "a fox"})),
            (Interface::Image, &[], None, usual, json!({"prompt": "a fox"})),
            (Interface::Speech, &[], Some(schema(&["text"])), speech.to_bytes(), json!({"text": "hi"})),
            (Interface::Json, &[], None, br#"{"a": [1]}"#.to_vec(), json!({"a": [1]})),
        ] {
            let got = inputs(interface, names).read(&input, seed, schema.as_ref()).unwrap();
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn what_the_client_asked_for_and_the_model_does_not_take_is_refused() {
        let chat = ChatInput { temperature: Some(0.5), ..ChatInput::ask("Hi") };
        let refused = inputs(Interface::Chat, &[]).read(&chat.to_bytes(), 0, Some(&schema(&["prompt"])));
        assert!(matches!(refused, Err(AdapterError::Refused { message, .. }) if message.contains("`temperature`")));
        let tall = ImageInput { prompt: "a fox".into(), width: 512, height: 768 }.to_bytes();
        let refused = inputs(Interface::Image, &[]).read(&tall, 0, Some(&schema(&["prompt"])));
        assert!(matches!(refused, Err(AdapterError::Refused { message, .. }) if message.contains("`height`")));
        // That it takes no prompt is not the client's fault.
        let wrong = inputs(Interface::Chat, &[]).read(&chat.to_bytes(), 0, Some(&schema(&["question"])));
        assert!(matches!(wrong, Err(AdapterError::Unavailable(message)) if message.contains("question")));
        for (interface, input) in
            [(Interface::Chat, "{}"), (Interface::Chat, "[]"), (Interface::Image, "{}"), (Interface::Json, "[1]")]
        {
            let refused = inputs(interface, &[]).read(input.as_bytes(), 0, None);
            assert!(matches!(refused, Err(AdapterError::Refused { .. })), "{input}");
        }
    }

    #[test]
    fn a_server_is_not_made_to_fetch_what_strangers_name() {
        let mut files = schema(&["prompt", "image", "images"]);
        files.inputs.insert("image".into(), json!({"type": "string", "format": "uri"}));
        files.inputs.insert("images".into(), json!({"type": "array", "items": {"format": "uri"}}));
        for (input, with_schema, without) in [
            (r#"{"image": "data:image/png;base64,AA=="}"#, true, true),
            (r#"{"image": "http://169.254.169.254/"}"#, false, false),
            (r#"{"images": ["data:,", "s3://bucket/key"]}"#, false, false),
            (r#"{"image": "/etc/passwd"}"#, false, true),
            (r#"{"prompt": "http://a is an address"}"#, true, false),
            (r#"{"prompt": "what is http://a ?"}"#, true, true),
        ] {
            let read = |schema: Option<&Schema>| inputs(Interface::Json, &[]).read(input.as_bytes(), 0, schema).is_ok();
            assert_eq!((read(Some(&files)), read(None)), (with_schema, without), "{input}");
            let remote = Inputs { remote_files: true, ..inputs(Interface::Json, &[]) };
            assert!(remote.read(input.as_bytes(), 0, Some(&files)).is_ok());
        }
    }

    #[test]
    fn conversations_have_a_form() {
        let turns = [said(Role::User, "a"), said(Role::Assistant, "b"), said(Role::User, "c")];
        let turns: Vec<_> = turns.iter().collect();
        assert_eq!(transcript(&turns).unwrap(), "User: a\n\nAssistant: b\n\nUser: c\n\nAssistant:");
        let pair = |text: &str| [format!("<{text}>"), "</>".to_owned()];
        let markers = Template { system: None, user: pair("u"), assistant: pair("a"), answer: "<a>".into() };
        let messages = [said(Role::User, "a"), said(Role::Assistant, "b")];
        assert_eq!(with_markers(&markers, &messages).unwrap(), "<u>a</><a>b</><a>");
        assert!(with_markers(&markers, &[said(Role::System, "s")]).is_err());
    }
}
