//! What the transport counts and measures.

use std::time::Duration;

use baton_actors::raft::transport::{CallError, Class};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::cluster::hello::Cause;

/// The class of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClassLabel {
    /// [`Class::name`].
    pub class: &'static str,
}

/// The class and the direction of a connection, or of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WayLabels {
    /// [`Class::name`].
    pub class: &'static str,
    /// `out` or `in`.
    pub way: &'static str,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    /// [`Class::name`].
    pub class: &'static str,
    /// `answered`, `unreachable`, `timed_out`, `refused`, `denied`, `too_large` or `dropped`.
    pub outcome: &'static str,
}

/// Who refused whom why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// [`By::name`].
    pub by: &'static str,
    /// [`Cause::name`].
    pub cause: &'static str,
}

/// How a reload of certificates ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabels {
    /// `loaded` or `refused`.
    pub outcome: &'static str,
}

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// This node.
    Us,
    /// The other one, and told so.
    Them,
}

impl By {
    /// The word in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Them => "them",
        }
    }
}

/// What the transport counts and measures.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Open connections after their handshake.
    pub connections: Family<WayLabels, Gauge>,
    /// Calls by how they ended.
    pub calls: Family<CallLabels, Counter>,
    /// Calls of others by how they ended: `answered`, `denied` or `expired`.
    pub served: Family<CallLabels, Counter>,
    /// Bytes, before encryption.
    pub bytes: Family<WayLabels, Counter>,
    /// Calls under way.
    pub in_flight: Family<WayLabels, Gauge>,
    /// Calls that wait for others to end.
    pub waiting: Family<ClassLabel, Gauge>,
    /// Dials that failed.
    pub failed_dials: Family<ClassLabel, Counter>,
    /// Handshakes refused.
    pub refused_handshakes: Family<RefusedLabels, Counter>,
    /// Time from a call to its answer.
    pub round_trip: Family<ClassLabel, Histogram>,
    /// Seconds until the own certificate runs out; negative afterwards, zero without TLS.
    pub certificate_expiry: Gauge,
    /// Reloads of certificates.
    pub reloads: Family<ReloadLabels, Counter>,
    /// Saves of the lives that were seen which failed.
    pub unsaved_lives: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.0001, 2.0, 17));
        Self {
            connections: Family::default(),
            calls: Family::default(),
            served: Family::default(),
            bytes: Family::default(),
            in_flight: Family::default(),
            waiting: Family::default(),
            failed_dials: Family::default(),
            refused_handshakes: Family::default(),
            round_trip: Family::new_with_constructor(seconds),
            certificate_expiry: Gauge::default(),
            reloads: Family::default(),
            unsaved_lives: Counter::default(),
        }
    }
}

impl Metrics {
    /// Adds the metrics to a registry, all with the prefix `cluster`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("cluster");
        registry.register("connections", "Open connections to and from members", self.connections.clone());
        registry.register("calls", "Calls to members by how they ended", self.calls.clone());
        registry.register("served", "Calls of members by how they ended", self.served.clone());
        registry.register("transport_bytes", "Bytes to and from members", self.bytes.clone());
        registry.register("in_flight", "Calls under way", self.in_flight.clone());
        registry.register("waiting", "Calls that wait for others to end", self.waiting.clone());
        registry.register("failed_dials", "Dials that failed", self.failed_dials.clone());
        let refused = self.refused_handshakes.clone();
        registry.register("refused_handshakes", "Handshakes that were refused", refused);
        registry.register("certificate_reloads", "Certificates that were read anew", self.reloads.clone());
        registry.register("unsaved_lives", "Seen lives that could not be saved", self.unsaved_lives.clone());
        let round_trip = self.round_trip.clone();
        registry.register_with_unit("round_trip", "From a call to its answer", Unit::Seconds, round_trip);
        registry.register_with_unit(
            "certificate_expiry",
            "Until the own certificate runs out",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
    }

    pub(super) fn ended(&self, class: Class, outcome: &'static str) {
        self.calls.get_or_create(&CallLabels { class: class.name(), outcome }).inc();
    }

    pub(super) fn answered_after(&self, class: Class, time: Duration) {
        self.round_trip.get_or_create(&ClassLabel { class: class.name() }).observe(time.as_secs_f64());
    }

    pub(super) fn served_as(&self, class: Class, outcome: &'static str) {
        self.served.get_or_create(&CallLabels { class: class.name(), outcome }).inc();
    }

    pub(super) fn refused(&self, by: By, cause: Cause) {
        let labels = RefusedLabels { by: by.name(), cause: cause.name() };
        self.refused_handshakes.get_or_create(&labels).inc();
    }

    pub(super) fn failed_dial(&self, class: Class) {
        self.failed_dials.get_or_create(&ClassLabel { class: class.name() }).inc();
    }

    pub(super) fn gauge(family: &Family<WayLabels, Gauge>, class: Class, way: &'static str) -> Held {
        Held::new(family.get_or_create_owned(&WayLabels { class: class.name(), way }))
    }

    pub(super) fn waits(&self, class: Class) -> Held {
        Held::new(self.waiting.get_or_create_owned(&ClassLabel { class: class.name() }))
    }

    pub(super) fn bytes(&self, class: Class, way: &'static str) -> Counter {
        self.bytes.get_or_create_owned(&WayLabels { class: class.name(), way })
    }
}

/// The word for how a call ended.
pub(super) const fn outcome(result: Result<(), &CallError>) -> &'static str {
    match result {
        Ok(()) => "answered",
        Err(CallError::Unreachable(_)) => "unreachable",
        Err(CallError::TimedOut(_)) => "timed_out",
        Err(CallError::Refused(_)) => "refused",
        Err(CallError::Denied(_)) => "denied",
        Err(CallError::TooLarge { .. }) => "too_large",
    }
}

/// Something that is counted while it lasts.
#[derive(Debug)]
pub(super) struct Held(Gauge);

impl Held {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
