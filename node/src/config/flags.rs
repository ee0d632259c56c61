//! Every setting as a flag: `--node.block_time`, `--evnode.node.block_time`, and the old
//! `--rollkit.node.block_time`.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::key::{Key, Treatment};
use crate::config::settings::Flags;
use crate::config::table::KEYS;
use crate::config::value::Kind;

/// Shorter names of what is often said on the command line.
const SHORT: [(&str, &str); 3] =
    [("kv.listen", "kv-endpoint"), ("raft.join", "join"), ("raft.witness", "witness")];

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        KEYS.iter().fold(command, |command, key| command.arg(arg(key)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &'static Key| Some((key.name, matches.get_one::<String>(key.name)?.clone()));
        Ok(Self(KEYS.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

fn arg(key: &'static Key) -> Arg {
    let mut aliases = vec![format!("evnode.{}", key.name), format!("rollkit.{}", key.name)];
    let short = SHORT.iter().filter(|(name, _)| *name == key.name);
    aliases.extend(short.map(|(_, short)| (*short).to_owned()));
    let arg = Arg::new(key.name)
        .long(key.name)
        .aliases(aliases)
        .action(ArgAction::Set)
        .overrides_with(key.name)
        .allow_hyphen_values(true)
        .value_name(key.kind.unit())
        .help(help(key))
        .help_heading("Settings (also with the prefix --evnode., see docs/config.md)")
        .hide_short_help(!matches!(
            key.treatment,
            Treatment::Own | Treatment::Same | Treatment::Translated(_)
        ));
    // As Go's flags have it: `--node.lazy_mode` alone means yes.
    if key.kind == Kind::Bool {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        arg
    }
}

fn help(key: &Key) -> String {
    let doc = key.doc.trim_end_matches('.');
    let default = match key.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    match key.treatment {
        Treatment::Own | Treatment::Same | Treatment::Translated(_) => format!("{doc}{default}"),
        Treatment::Ignored(_) | Treatment::Unsupported(..) => {
            format!("{doc}{default} ({})", key.treatment.name())
        }
    }
}
