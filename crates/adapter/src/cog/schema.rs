//! What a Cog model takes and gives, as its server's `/openapi.json` has it.

use althing_runtime::Interface;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Schema {
    /// Inputs by name, with what is said of them.
    pub inputs: BTreeMap<String, Value>,
    pub required: BTreeSet<String>,
    pub output: Value,
    /// Whether it has streams of events.
    pub streams: bool,
}

impl Schema {
    /// `None` if there is no description of inputs in it.
    pub fn read(document: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(document).ok()?;
        let schemas = &document["components"]["schemas"];
        let inputs = schemas["Input"]["properties"].as_object()?;
        let required = schemas["Input"]["required"].as_array().cloned().unwrap_or_default();
        Some(Self {
            inputs: inputs.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            required: required.iter().filter_map(|name| name.as_str()).map(str::to_owned).collect(),
            output: schemas["Output"].clone(),
            streams: document["paths"]["/predictions"]["post"]["x-cog-streaming"] == true,
        })
    }

    /// Whether an input is a file, or a list of them.
    pub fn is_file(&self, input: &str) -> bool {
        let said = self.inputs.get(input);
        said.is_some_and(|said| said["format"] == "uri" || said["items"]["format"] == "uri")
    }

    /// Whether an input is a list.
    pub fn is_list(&self, input: &str) -> bool {
        self.inputs.get(input).is_some_and(|said| said["type"] == "array")
    }

    /// The interface that it looks like.
    pub fn interface(&self) -> Interface {
        let takes = |name| self.inputs.contains_key(name);
        let output = if self.output["type"] == "array" { &self.output["items"] } else { &self.output };
        let is_file = output["format"] == "uri";
        let is_text = output["type"] == "string" && !is_file && self.output["x-cog-array-display"] == "concatenate";
        match () {
            () if is_text && takes("prompt") => Interface::Chat,
            () if is_file && takes("text") => Interface::Speech,
            () if is_file && takes("prompt") && !takes("image") => Interface::Image,
            () => Interface::Json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(properties: Value, output: Value) -> Vec<u8> {
        let input = json!({"type": "object", "required": ["prompt"], "properties": properties});
        let paths = json!({"/predictions": {"post": {"x-cog-streaming": true}}});
        json!({"components": {"schemas": {"Input": input, "Output": output}}, "paths": paths}).to_string().into_bytes()
    }

    #[test]
    fn a_model_looks_like_what_it_takes_and_gives() {
        let (text, file) = (json!({"type": "string"}), json!({"type": "string", "format": "uri"}));
        let pieces = json!({"type": "array", "items": text, "x-cog-array-display": "concatenate"});
        for (properties, output, interface) in [
            (json!({"prompt": text}), pieces.clone(), Interface::Chat),
            (json!({"prompt": text}), file.clone(), Interface::Image),
            (json!({"prompt": text, "width": {}}), json!({"type": "array", "items": file}), Interface::Image),
            (json!({"prompt": text, "image": file}), file.clone(), Interface::Json),
            (json!({"text": text}), file.clone(), Interface::Speech),
            (json!({"prompt": text}), text.clone(), Interface::Json),
            (json!({"a": {"type": "integer"}}), json!({"type": "integer"}), Interface::Json),
        ] {
            let schema = Schema::read(&document(properties.clone(), output)).unwrap();
            assert_eq!(schema.interface(), interface, "{properties}");
            assert!(schema.streams && schema.required.contains("prompt"));
        }
        for none in [&b""[..], b"{}", br#"{"components":{"schemas":{"Input":{}}}}"#] {
            assert_eq!(Schema::read(none), None);
        }
    }
}
