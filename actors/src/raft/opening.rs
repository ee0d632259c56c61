//! Building an instance of openraft over the open store.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use baton_messages::raft::{Applied, BlocksApplied};
use baton_messages::types::MemberId;
use baton_storage::raft_types::TypeConfig;
use openraft::errors::Fatal;
use openraft::{SnapshotPolicy, StepDownPolicy};
use tracing::{debug, info};

use super::network::Network;
use super::shared::Shared;
use super::{Bootstrap, Config, Error, Openraft, joining};

/// Waits until the state machine of an instance that was shut down is gone: it may be applying
/// still, and two of them would apply the same entries twice.
pub(super) async fn released(machine: &Arc<()>) {
    // This one, and the one the actor keeps.
    while Arc::strong_count(machine) > 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Starts openraft over the store. A sole node without a membership becomes a cluster of one here;
/// one with peers goes on with `joining`.
pub(super) async fn open(
    config: Config,
    (applied, records): (Vec<Recipient<Applied>>, Vec<Recipient<BlocksApplied>>),
    shared: Arc<Shared>,
    network: Network,
    machine: Arc<()>,
) -> Result<Openraft, Error> {
    released(&machine).await;
    let id = MemberId::of(config.member.storage);
    let settings = settings(&config).map_err(|error| Error::Start(error.to_string()))?;
    let log = shared.store.log();
    let state_machine = shared.store.state_machine(Box::new(move |event| {
        // Held for as long as the state machine is.
        let _alive = &machine;
        for link in &applied {
            link.do_send(Applied { tip: event.tip });
        }
        for link in records.iter().filter(|_| !event.blocks.is_empty()) {
            if link.try_send(BlocksApplied { blocks: event.blocks.clone() }).is_err() {
                debug!(tip = event.tip.height.0, "the record of blocks is behind");
            }
        }
    }));
    let start = |error: Fatal<TypeConfig>| Error::Start(error.to_string());
    let raft = Openraft::new(id, settings, network, log, state_machine).await.map_err(start)?;
    let initialised = raft.is_initialized().await.map_err(start)?;
    // A sole voter of before there were clusters has a membership and no cluster.
    let legacy = initialised && shared.store.cluster().is_none();
    if legacy || (!initialised && config.bootstrap == Bootstrap::Sole) {
        info!(member = %id, name = %config.member.name, "forming a cluster of one");
        joining::initialise(&shared, &raft, config.fresh_cluster, [(id, config.member)].into())
            .await
            .map_err(Error::Start)?;
    }
    Ok(raft)
}

/// Log records that openraft sends at a time; their bytes are bounded by the transport's frame.
const MAX_ENTRIES: u64 = 256;

fn settings(config: &Config) -> Result<Arc<openraft::Config>, openraft::ConfigError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let settings = openraft::Config {
        cluster_name: "baton".to_owned(),
        heartbeat_interval: millis(config.heartbeat_interval),
        election_timeout_min: millis(config.election_timeout_min),
        election_timeout_max: millis(config.election_timeout_max),
        install_snapshot_timeout: millis(config.question_within),
        max_payload_entries: MAX_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_after),
        // What is purged is decided in `retention`.
        max_in_snapshot_log_to_keep: u64::MAX,
        // A sequencer that comes back asks again: nobody knows what happened meanwhile.
        enable_leader_restore: Some(false),
        enable_pre_vote: Some(true),
        // A leader hands over before it is removed.
        removed_leader_step_down: StepDownPolicy::Never,
        ..openraft::Config::default()
    };
    Ok(Arc::new(settings.validate()?))
}
