//! The configuration file of a new home: every setting that has an effect, with comments.

use std::fmt::Write;

use serde_yaml_ng::Value as Yaml;

use crate::config::key::Treatment;
use crate::config::settings::{Setting, Settings};
use crate::config::value::Value;

/// The file's text. It loads to the same values.
#[must_use]
pub fn template(settings: &Settings) -> String {
    let mut text = "# Settings of a baton node; `baton config reference` explains all of them.\n".to_owned();
    let mut open: Vec<&str> = vec![];
    for setting in settings.iter().filter(|setting| has_effect(setting)) {
        let mut path: Vec<_> = setting.key.name.split('.').collect();
        let name = path.pop().expect("a name has a last part");
        let shared = open.iter().zip(&path).take_while(|(one, two)| one == two).count();
        for (depth, section) in path.iter().enumerate().skip(shared) {
            if depth == 0 {
                text.push('\n');
            }
            let _ = writeln!(text, "{}{section}:", "  ".repeat(depth));
        }
        let indent = "  ".repeat(path.len());
        let _ = writeln!(text, "{indent}# {}", setting.key.doc);
        let _ = writeln!(text, "{indent}{name}: {}", yaml(&setting.value));
        open = path;
    }
    text
}

/// What has no effect, or only one value, is left out unless somebody says it.
fn has_effect(setting: &Setting) -> bool {
    match setting.key.treatment {
        Treatment::Own | Treatment::Same | Treatment::Translated(_) => true,
        Treatment::Ignored(_) | Treatment::Unsupported(..) => setting.value != setting.key.default_value(),
    }
}

fn yaml(value: &Value) -> String {
    let value = match value {
        Value::Bool(value) => Yaml::from(*value),
        Value::Number(value) => Yaml::from(*value),
        Value::Fraction(value) => Yaml::from(*value),
        Value::List(values) => {
            return format!("[{}]", values.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(", "));
        }
        Value::Duration(_) => Yaml::from(value.to_string()),
        // Standard input of this command is not that of the next.
        Value::Text(text) if text == "-" => return quoted(""),
        Value::Text(text) => return quoted(text),
    };
    serde_yaml_ng::to_string(&value).unwrap_or_default().trim_end().to_owned()
}

/// A JSON string is a YAML string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is valid JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, Flags};

    #[test]
    fn what_is_written_is_read_again() {
        let given = [
            ("node.aggregator", "true"),
            ("da.auth_token", "to\"ken: #1"),
            ("da.signing_addresses", "a,b"),
            ("node.block_time", "1h30m"),
            ("signer.passphrase_file", "/a b/c"),
            ("raft.node_id", "007"),
        ];
        let flags = Flags(given.into_iter().map(|(key, value)| (key, value.to_owned())).collect());
        let settings = Settings::gather(None, &flags, &Env::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evnode.yaml");
        std::fs::write(&path, template(&settings)).unwrap();
        let read = Settings::gather(Some(&path), &Flags::default(), &Env::default()).unwrap();
        for (one, two) in settings.iter().zip(read.iter()) {
            assert_eq!(one.value, two.value, "{}", one.key.name);
        }
    }
}
