//! `baton force`: transactions put on DA by their sender, where no sequencer can leave them out.

use std::path::PathBuf;
use std::time::Duration;

use baton_actors::da::DaLayer;
use baton_actors::da::celestia::{self, AuthToken, Celestia};
use baton_messages::da::{Blob, DaError, Namespace};
use baton_messages::types::{DaHeight, Hash};
use bytes::Bytes;
use clap::Args;

use crate::cli::args::NodeArgs;
use crate::cli::place::Place;
use crate::config::Settings;
use crate::exit::ExitError;
use crate::logging::print;

/// Arguments of `force`.
#[derive(Clone, Debug, Args)]
pub struct ForceArgs {
    /// The transactions, in order, as text: `key=value` for the key-value app.
    #[arg(value_name = "TX", required_unless_present = "file")]
    pub txs: Vec<String>,

    /// One transaction more, the bytes of this file.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// A home whose settings say where DA is, or the settings themselves: `da.address`,
    /// `da.forced_inclusion_namespace`, and where the DA node asks for it `da.auth_token`.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Posts the transactions, and prints the hash of each and where on DA they are.
///
/// # Errors
///
/// When a setting is missing or the DA node does not take them.
pub async fn run(args: ForceArgs) -> Result<(), ExitError> {
    let settings = Place::of(&args.node)?.settings;
    let namespace = setting(&settings, "da.forced_inclusion_namespace")?;
    let blobs = blobs(&args, Namespace::of(&namespace))?;
    let layer = Celestia::new(config(&settings)?).map_err(ExitError::config)?;
    let posted = layer.submit(&blobs).await.map_err(refused)?;
    print(&told(&blobs, posted))
}

fn setting(settings: &Settings, key: &str) -> Result<String, ExitError> {
    let text = settings.text(key);
    match text.is_empty() {
        true => Err(ExitError::config(format!("{key} is not set: say --{key}, as the chain has it"))),
        false => Ok(text),
    }
}

fn config(settings: &Settings) -> Result<celestia::Config, ExitError> {
    let options = settings.text("da.submit_options");
    let options = if options.trim().is_empty() { "{}" } else { options.trim() };
    let submit_options = serde_json::from_str(options).map_err(|error| {
        ExitError::config(format!("da.submit_options is not what a DA node takes: {error}"))
    })?;
    Ok(celestia::Config {
        address: setting(settings, "da.address")?,
        auth_token: Some(settings.text("da.auth_token"))
            .filter(|text| !text.is_empty())
            .map(|text| AuthToken::new(&text)),
        request_timeout: WITHIN,
        submit_options,
        signing_addresses: vec![],
        submits_per_account: 1,
        max_answer: 1 << 20,
    })
}

/// The longest wait for the DA node, as ev-node's forced-inclusion server has it.
const WITHIN: Duration = Duration::from_secs(60);

fn blobs(args: &ForceArgs, namespace: Namespace) -> Result<Vec<Blob>, ExitError> {
    let mut all: Vec<Bytes> = args.txs.iter().map(|text| Bytes::from(text.clone().into_bytes())).collect();
    if let Some(path) = &args.file {
        let bytes = std::fs::read(path)
            .map_err(|error| ExitError::usage(format!("{} cannot be read: {error}", path.display())))?;
        all.push(bytes.into());
    }
    if all.iter().any(Bytes::is_empty) {
        return Err(ExitError::usage("an empty transaction says nothing: no sequencer takes it"));
    }
    Ok(all.into_iter().map(|data| Blob { namespace, data }).collect())
}

fn refused(error: DaError) -> ExitError {
    match error {
        DaError::TooBig(_) | DaError::Other(_) | DaError::StaleGrant(_) => ExitError::other(error),
        DaError::AlreadyInMempool(_)
        | DaError::NotIncluded(_)
        | DaError::AccountSequence(_)
        | DaError::FromTheFuture(_)
        | DaError::Unavailable(_) => ExitError::retry_later(format!(
            "{error}; it may be on DA all the same, and a transaction that is there twice is forced twice"
        )),
    }
}

fn told(blobs: &[Blob], at: DaHeight) -> String {
    let line = |blob: &Blob| format!("{} at DA height {at}\n", Hash::of(&blob.data));
    blobs.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    fn args(txs: &[&str]) -> ForceArgs {
        let node = NodeArgs { home: None, flags: Flags::default() };
        ForceArgs { txs: txs.iter().map(|text| (*text).to_owned()).collect(), file: None, node }
    }

    #[test]
    fn each_transaction_is_a_blob_of_its_own_in_order() {
        let blobs = blobs(&args(&["a=1", "b=2"]), Namespace::of("forced")).unwrap();
        assert_eq!(blobs.iter().map(|blob| &blob.data[..]).collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        let told = told(&blobs, DaHeight(7));
        assert!(told.starts_with(&format!("{} at DA height 7\n", Hash::of(b"a=1"))), "{told}");
    }

    #[test]
    fn an_empty_transaction_is_refused_before_it_is_paid_for() {
        assert!(blobs(&args(&["a=1", ""]), Namespace::of("forced")).is_err());
    }
}
