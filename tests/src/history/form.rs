//! Of how many members a cluster is, which is chosen for a batch and not drawn from a seed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most voters of a cluster.
const MOST: usize = 7;
/// Fewer voters could do nothing without their one engine.
const LEAST_WITH_WITNESS: usize = 3;

/// How many members form a cluster: `5`, or `3+w` for two and a witness. A witness that is not asked
/// for is there by chance, in clusters of three and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Form {
    voters: usize,
    witness: bool,
}

impl Form {
    /// Three voters: what a seed means where nothing else is said.
    pub const USUAL: Self = Self { voters: 3, witness: false };

    /// Members that form the cluster.
    #[must_use]
    pub const fn voters(self) -> usize {
        self.voters
    }

    /// Whether the last voter has neither engine nor key, where chance says so or not.
    pub(super) const fn witness(self, by_chance: bool) -> bool {
        self.witness || (by_chance && self.voters >= LEAST_WITH_WITNESS)
    }
}

impl Default for Form {
    fn default() -> Self {
        Self::USUAL
    }
}

/// It is the form of no cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no form of a cluster: a number of voters from 1 to {MOST}, such as 5, or from {LEAST_WITH_WITNESS} with one of them a witness, such as 3+w"
)]
pub struct NoForm(String);

impl FromStr for Form {
    type Err = NoForm;

    fn from_str(text: &str) -> Result<Self, NoForm> {
        let no_form = || NoForm(text.to_owned());
        let (number, witness) = match text.strip_suffix("+w") {
            Some(number) => (number, true),
            None => (text, false),
        };
        let voters = number.parse().map_err(|_| no_form())?;
        let least = if witness { LEAST_WITH_WITNESS } else { 1 };
        if (least..=MOST).contains(&voters) { Ok(Self { voters, witness }) } else { Err(no_form()) }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.voters, if self.witness { "+w" } else { "" })
    }
}

impl From<Form> for String {
    fn from(form: Form) -> Self {
        form.to_string()
    }
}

impl TryFrom<String> for Form {
    type Error = NoForm;

    fn try_from(text: String) -> Result<Self, NoForm> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_written_as_it_is_read_and_nothing_else_is_one() {
        for text in ["1", "2", "3", "5", "7", "3+w", "7+w"] {
            assert_eq!(text.parse::<Form>().map(|form| form.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "0", "8", "2+w", "w", "3+", "-1", "3 + w"] {
            assert_eq!(text.parse::<Form>(), Err(NoForm(text.to_owned())));
        }
    }
}
