//! What the kernel says of this process, under the names that every Prometheus client gives it. EDGE:
//! `/proc` is read when somebody asks.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks in a second, as the kernel counts for user space on every architecture that Rust has.
const TICKS: f64 = 100.0;

/// Reads `/proc` at each scrape; what cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: Option<f64>| match value {
            None => Ok(()),
            Some(value) => {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
            }
        };
        let status = read("status");
        let stat = read("stat");
        let kilobytes = |name| field(&status, name).map(|kilobytes| kilobytes * 1024.0);
        gauge("process_resident_memory_bytes", "Memory in use", kilobytes("VmRSS:"))?;
        gauge("process_virtual_memory_bytes", "Addresses in use", kilobytes("VmSize:"))?;
        gauge("process_open_fds", "Open files and sockets", open_files())?;
        gauge(
            "process_max_fds",
            "Files and sockets that may be open",
            field(&read("limits"), "Max open files"),
        )?;
        gauge("process_start_time_seconds", "When the process started", start_time(&stat))?;
        if let Some((user, system)) = number(&stat, 14).zip(number(&stat, 15)) {
            let counter = ConstCounter::new((user + system) / TICKS);
            let (name, help) = ("process_cpu_seconds", "Time that processors have spent on the process");
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

fn read(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default()
}

/// The first number behind a line's name.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// A number of `/proc/self/stat` by its place in proc(5). The name of the program may hold spaces and
/// parentheses: counting begins behind the last one.
fn number(stat: &str, place: usize) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(place.checked_sub(3)?)?.parse().ok()
}

fn start_time(stat: &str) -> Option<f64> {
    let boot = field(&std::fs::read_to_string("/proc/stat").ok()?, "btime")?;
    Some(boot + number(stat, 22)? / TICKS)
}

fn open_files() -> Option<f64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(count).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_behind_the_name() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0 12345 1";
        assert_eq!((number(stat, 14), number(stat, 15)), (Some(250.0), Some(50.0)));
        assert_eq!((number(stat, 22), number("", 14)), (Some(12345.0), None));
    }

    #[test]
    fn fields_are_found_by_name() {
        assert_eq!(field("VmSize:\t  12 kB\nVmRSS:\t 34 kB\n", "VmRSS:"), Some(34.0));
        assert_eq!(
            field("Max open files            1024       4096       files\n", "Max open files"),
            Some(1024.0)
        );
        assert_eq!(field("", "VmRSS:"), None);
    }
}
