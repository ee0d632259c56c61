//! Clocks that run faster or slower than others.
//!
//! All hosts share one virtual clock (ADR 14), so a timer cannot run at a pace of its own. But nearly all
//! durations come from settings, and what was measured is compared with settings: a node whose clock runs
//! a tenth faster is one all of whose settings are a tenth shorter, and whose wall clock gains a tenth.
//! Every field of every settings struct is named here: a new one does not compile until somebody has said
//! whether it is a duration. Constants of the actors keep their length; `docs/simulation.md` names those.

use std::time::Duration;

use baton::wiring::Settings;
use baton_actors::da_submitter::batching::Batching;
use baton_actors::sequencer::forward;
use baton_actors::supervisor::peers::Times;
use baton_actors::syncer::backfill;
use baton_actors::{da, da_submitter, engine, executor, inbox, raft, reaper, sequencer, supervisor, syncer};

const MILLION: i128 = 1_000_000;

/// How fast a clock runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// By how much faster than true time, in parts per million; negative: slower.
    pub ppm: i64,
}

impl Rate {
    /// How much such a clock counts while so much time passes.
    #[must_use]
    pub fn counted(self, time: Duration) -> Duration {
        scaled(time, MILLION + i128::from(self.ppm), MILLION)
    }

    /// How much time passes until such a clock has counted so much.
    #[must_use]
    pub fn takes(self, counted: Duration) -> Duration {
        scaled(counted, MILLION, MILLION + i128::from(self.ppm))
    }

    /// The settings of a node as they come out by its clock. What others have to do with is not about
    /// its clock: the DA layer's block time is.
    pub(crate) fn settings(self, settings: Settings) -> Settings {
        if self == Self::default() {
            return settings;
        }
        let Settings {
            raft,
            sequencer,
            engine,
            executor,
            reaper,
            da,
            da_submitter,
            syncer,
            supervisor,
            signer,
            p2p,
            inbox,
        } = settings;
        Settings {
            raft: self.raft(raft),
            sequencer: self.sequencer(sequencer),
            engine: self.engine(engine),
            executor: self.executor(executor),
            reaper: reaper.map(|reaper| self.reaper(reaper)),
            da: self.da(da),
            da_submitter: self.da_submitter(da_submitter),
            syncer: self.syncer(syncer),
            supervisor: self.supervisor(supervisor),
            // A signer waits for nothing, and peers are no matter of who leads.
            signer,
            p2p,
            inbox: inbox.map(|inbox| self.inbox(inbox)),
        }
    }

    fn raft(self, config: raft::Config) -> raft::Config {
        let raft::Config {
            member,
            heartbeat_interval,
            election_timeout_min,
            election_timeout_max,
            snapshot_after,
            keep_entries,
            keep_bytes,
            bootstrap,
            fresh_cluster,
            question_within,
            reopen_after,
            longest_pause,
        } = config;
        raft::Config {
            member,
            heartbeat_interval: self.takes(heartbeat_interval),
            election_timeout_min: self.takes(election_timeout_min),
            election_timeout_max: self.takes(election_timeout_max),
            snapshot_after,
            keep_entries,
            keep_bytes,
            bootstrap,
            fresh_cluster,
            question_within: self.takes(question_within),
            reopen_after: self.takes(reopen_after),
            longest_pause: self.takes(longest_pause),
        }
    }

    fn sequencer(self, config: sequencer::Config) -> sequencer::Config {
        let sequencer::Config {
            max_txs,
            max_bytes,
            max_tx_bytes,
            replay_window,
            max_waiting,
            longest_wait,
            forward,
        } = config;
        let forward = {
            let forward::Config { max_txs, max_bytes, reply_within, again_after, first_pause, longest_pause } =
                forward;
            forward::Config {
                max_txs,
                max_bytes,
                reply_within: self.takes(reply_within),
                again_after: self.takes(again_after),
                first_pause: self.takes(first_pause),
                longest_pause: self.takes(longest_pause),
            }
        };
        let longest_wait = self.takes(longest_wait);
        sequencer::Config {
            max_txs,
            max_bytes,
            max_tx_bytes,
            replay_window,
            max_waiting,
            longest_wait,
            forward,
        }
    }

    fn engine(self, config: engine::Config) -> engine::Config {
        let engine::Config { call_timeout, max_waiting, results_kept } = config;
        engine::Config { call_timeout: self.takes(call_timeout), max_waiting, results_kept }
    }

    fn executor(self, config: executor::Config) -> executor::Config {
        let executor::Config {
            block_time,
            lazy,
            lazy_interval,
            max_bytes,
            max_da_backlog,
            reply_within,
            retry_after,
            record_signature_after,
        } = config;
        executor::Config {
            block_time: self.takes(block_time),
            lazy,
            lazy_interval: self.takes(lazy_interval),
            max_bytes,
            max_da_backlog,
            reply_within: self.takes(reply_within),
            retry_after: self.takes(retry_after),
            record_signature_after: self.takes(record_signature_after),
        }
    }

    fn reaper(self, config: reaper::Config) -> reaper::Config {
        let reaper::Config { interval, longest_pause, reply_within, max_bytes } = config;
        reaper::Config {
            interval: self.takes(interval),
            longest_pause: self.takes(longest_pause),
            reply_within: self.takes(reply_within),
            max_bytes,
        }
    }

    fn da(self, config: da::Config) -> da::Config {
        let da::Config { request_timeout, submits_in_flight, reads_in_flight } = config;
        da::Config { request_timeout: self.takes(request_timeout), submits_in_flight, reads_in_flight }
    }

    fn da_submitter(self, config: da_submitter::Config) -> da_submitter::Config {
        let da_submitter::Config {
            header_namespace,
            data_namespace,
            signer,
            batching,
            max_bytes,
            max_blobs,
            interval,
            da_block_time,
            submit_within,
            reply_within,
            search_depth,
        } = config;
        let batching = {
            let Batching { strategy, enough_bytes, max_delay, min_items, most_waiting } = batching;
            Batching { strategy, enough_bytes, max_delay: self.takes(max_delay), min_items, most_waiting }
        };
        da_submitter::Config {
            header_namespace,
            data_namespace,
            signer,
            batching,
            max_bytes,
            max_blobs,
            interval: self.takes(interval),
            da_block_time: self.takes(da_block_time),
            submit_within: self.takes(submit_within),
            reply_within: self.takes(reply_within),
            search_depth,
        }
    }

    fn syncer(self, config: syncer::Config) -> syncer::Config {
        let syncer::Config { reply_within, retry_after, log_every, backfill, executes } = config;
        let backfill = {
            let backfill::Config { max_bytes, reply_within, first_pause, longest_pause, log_every } =
                backfill;
            backfill::Config {
                max_bytes,
                reply_within: self.takes(reply_within),
                first_pause: self.takes(first_pause),
                longest_pause: self.takes(longest_pause),
                log_every: self.takes(log_every),
            }
        };
        syncer::Config {
            reply_within: self.takes(reply_within),
            retry_after: self.takes(retry_after),
            log_every,
            backfill,
            executes,
        }
    }

    fn supervisor(self, config: supervisor::Config) -> supervisor::Config {
        let supervisor::Config {
            look_after,
            times,
            witness,
            begins_after,
            rpc,
            intake,
            settings,
            disk_limit,
            stalled_after,
            da_limit,
            da_every,
            hand_over_within,
            stop_within,
            reply_within,
        } = config;
        let Times { heartbeat, election_min, election_max } = times;
        let times = Times {
            heartbeat: self.takes(heartbeat),
            election_min: self.takes(election_min),
            election_max: self.takes(election_max),
        };
        supervisor::Config {
            look_after: self.takes(look_after),
            times,
            witness,
            begins_after,
            rpc,
            intake,
            settings,
            disk_limit: self.takes(disk_limit),
            stalled_after: self.takes(stalled_after),
            da_limit: self.takes(da_limit),
            da_every: self.takes(da_every),
            hand_over_within: self.takes(hand_over_within),
            stop_within: self.takes(stop_within),
            reply_within: self.takes(reply_within),
        }
    }

    fn inbox(self, config: inbox::Config) -> inbox::Config {
        let inbox::Config { namespace, max_tx_bytes, max_bytes, max_txs, da_block_time, reply_within } =
            config;
        inbox::Config {
            namespace,
            max_tx_bytes,
            max_bytes,
            max_txs,
            da_block_time: self.takes(da_block_time),
            reply_within: self.takes(reply_within),
        }
    }
}

fn scaled(time: Duration, by: i128, of: i128) -> Duration {
    let nanoseconds = i128::try_from(time.as_nanos()).unwrap_or(i128::MAX / MILLION / 2);
    let scaled = nanoseconds.saturating_mul(by) / of;
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_counts_more_and_its_durations_are_over_earlier() {
        let (fast, slow) = (Rate { ppm: 100_000 }, Rate { ppm: -100_000 });
        let second = Duration::from_secs(1);
        assert_eq!((fast.counted(second).as_millis(), slow.counted(second).as_millis()), (1_100, 900));
        assert_eq!((fast.takes(second).as_millis(), slow.takes(second).as_millis()), (909, 1_111));
        assert_eq!(Rate::default().takes(Duration::MAX.min(second)), second);
        assert_eq!(Rate { ppm: 100 }.counted(second), Duration::from_micros(1_000_100));
    }
}
