//! The process as the kernel sees it, under the names every Prometheus client uses.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Reads `/proc/self` at each scrape. What cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: Option<u64>| match value {
            Some(value) => {
                encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
            }
            None => Ok(()),
        };
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        gauge("process_resident_memory_bytes", "Resident memory", kilobytes(&status, "VmRSS"))?;
        gauge("process_virtual_memory_bytes", "Virtual memory", kilobytes(&status, "VmSize"))?;
        gauge("process_threads", "Threads", field(&status, "Threads"))?;
        gauge("process_open_fds", "Open file descriptors", open_files())?;
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        gauge("process_max_fds", "Most file descriptors", max_files(&limits))?;
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(ticks) = cpu_ticks(&stat) {
            let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
            encoder
                .encode_descriptor("process_cpu_seconds", "User and system time", None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        Ok(())
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    Some(field(status, name)? * 1024)
}

fn open_files() -> Option<u64> {
    u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

fn max_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time. The process' name stands in parentheses and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 98 0 0 0 25 17 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(42));
    }

    #[test]
    fn memory_is_in_bytes() {
        let status = "Name:\tbaton\nVmSize:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t9\n";
        assert_eq!(kilobytes(status, "VmRSS"), Some(1 << 20));
        assert_eq!(field(status, "Threads"), Some(9));
        assert_eq!(field(status, "VmSwap"), None);
    }

    #[test]
    fn a_limit_without_a_number_is_left_out() {
        assert_eq!(
            max_files("Max open files            1024                 4096                 files\n"),
            Some(1024)
        );
        assert_eq!(
            max_files("Max open files            unlimited            unlimited            files\n"),
            None
        );
    }
}
