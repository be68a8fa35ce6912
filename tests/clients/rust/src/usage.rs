//! What a process has used, from `/proc`. `None` where there is no `/proc`.

/// Clock ticks per second in `/proc/<pid>/stat`: 100 on every Linux that runs Rust's tier-1 targets.
const TICKS: f64 = 100.0;

/// Fields of `/proc/<pid>/stat` behind the name, which is in parentheses and may hold anything.
fn stat(pid: &str) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn ticks(fields: &[String], at: std::ops::RangeInclusive<usize>) -> Option<f64> {
    fields.get(at)?.iter().map(|field| field.parse::<f64>().ok()).sum()
}

/// CPU seconds (user and system) of a process; `"self"` is this one.
pub fn cpu_seconds(pid: &str) -> Option<f64> {
    Some(ticks(&stat(pid)?, 11..=12)? / TICKS)
}

/// CPU seconds of a server that has a process for each connection: its own, its children's, and of those that have ended.
pub fn family_cpu_seconds(pid: &str) -> Option<f64> {
    let children = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|process| {
        let fields = stat(process.file_name().to_str()?)?;
        (fields.get(1)? == pid).then(|| ticks(&fields, 11..=12)).flatten()
    });
    let children: f64 = children.sum();
    Some((ticks(&stat(pid)?, 11..=14)? + children) / TICKS)
}

/// Resident memory of a process in bytes.
pub fn rss_bytes(pid: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The server that listens on this TCP port on this machine, if we may look at it.
pub fn listener_pid(port: u16) -> Option<String> {
    let suffix = format!(":{port:04X}");
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let text = std::fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == "0A")
                .then(|| fields.get(9).copied())?
                .map(str::to_owned)
        })
    })?;
    let socket = format!("socket:[{inode}]");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().into_string().ok().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))?;
        let mut files = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
        files.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == socket.as_str())).then_some(pid)
    })
}
