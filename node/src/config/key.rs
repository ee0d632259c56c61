//! What is known about one setting.

use crate::config::value::{Kind, Rule, Value};

/// What becomes of a key in this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Not a key of ev-node.
    Own,
    /// Means what it means in ev-node.
    Same,
    /// Has an effect of its own; the formula.
    Translated(&'static str),
    /// Has no effect; why. A value other than the default gives a warning.
    Ignored(&'static str),
    /// Only these values are supported yet; any other is refused, and why.
    Unsupported(&'static [&'static str], &'static str),
}

impl Treatment {
    /// Its name in the documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "Baton's own",
            Self::Same => "same",
            Self::Translated(_) => "translated",
            Self::Ignored(_) => "ignored with a warning",
            Self::Unsupported(..) => "refused as not supported yet",
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The path in the YAML file: `node.block_time`.
    pub name: &'static str,
    /// The kind and so the unit.
    pub kind: Kind,
    /// The value when nobody says one, written as in the file.
    pub default: &'static str,
    /// What it has to keep.
    pub rule: Rule,
    /// What becomes of it.
    pub treatment: Treatment,
    /// The treatment holds only while this key is `true`; otherwise the key says nothing.
    pub when: Option<&'static str>,
    /// Never shown.
    pub secret: bool,
    /// What it is for.
    pub doc: &'static str,
}

impl Key {
    const fn new(name: &'static str, kind: Kind, default: &'static str, treatment: Treatment) -> Self {
        Self { name, kind, default, rule: Rule::Any, treatment, when: None, secret: false, doc: "" }
    }

    /// A key of this program.
    pub(super) const fn own(name: &'static str, kind: Kind, default: &'static str) -> Self {
        Self::new(name, kind, default, Treatment::Own)
    }

    /// A key that means what it means in ev-node.
    pub(super) const fn same(name: &'static str, kind: Kind, default: &'static str) -> Self {
        Self::new(name, kind, default, Treatment::Same)
    }

    /// A key of ev-node with another effect.
    pub(super) const fn translated(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        formula: &'static str,
    ) -> Self {
        Self::new(name, kind, default, Treatment::Translated(formula))
    }

    /// A key of ev-node without effect.
    pub(super) const fn ignored(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        why: &'static str,
    ) -> Self {
        Self::new(name, kind, default, Treatment::Ignored(why))
    }

    /// A key of ev-node of which only some values are supported.
    pub(super) const fn unsupported(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        accepted: &'static [&'static str],
        why: &'static str,
    ) -> Self {
        Self::new(name, kind, default, Treatment::Unsupported(accepted, why))
    }

    /// Adds what it is for.
    pub(super) const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    /// Adds a rule.
    pub(super) const fn rule(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }

    /// Restricts the treatment to when another key is `true`.
    pub(super) const fn when(mut self, other: &'static str) -> Self {
        self.when = Some(other);
        self
    }

    /// Marks it as a secret.
    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Whether ev-node has it.
    #[must_use]
    pub fn is_evnode(&self) -> bool {
        self.treatment != Treatment::Own
    }

    /// The environment variable: `BATON_NODE_BLOCK_TIME`.
    #[must_use]
    pub fn env(&self) -> String {
        format!("BATON_{}", self.name.to_uppercase().replace('.', "_"))
    }

    /// The part before the first dot; empty for keys at the top.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// Reads a value of this key.
    ///
    /// # Errors
    ///
    /// The rule that the text breaks.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let value = Value::parse(self.kind, text)?;
        if self.rule.holds(&value) { Ok(value) } else { Err(self.rule.text()) }
    }

    /// The value when nobody says one.
    #[must_use]
    pub fn default_value(&self) -> Value {
        self.read(self.default).expect("a test reads the default of every key")
    }
}
