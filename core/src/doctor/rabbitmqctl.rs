//! Asks RabbitMQ's own tool for what clients are not told.

use std::process::{Command, Stdio};

use super::Inventory;
use crate::{Error, ErrorKind, Result, Timestamp};

/// Quorum queues of a virtual host that nobody leads: no election was won since the node started, or the leader is this node
/// and its process is gone. The list of queues shows a leader where there is none.
const LEADERLESS: &str = r#"iolist_to_binary(lists:join(",", [[element(4, amqqueue:get_name(Q)), "=",
    atom_to_binary(element(1, amqqueue:get_pid(Q)))] || Q <- rabbit_amqqueue:list(<<VHOST/utf8>>),
    amqqueue:get_type(Q) =:= rabbit_quorum_queue,
    case ra_leaderboard:lookup_leader(element(1, amqqueue:get_pid(Q))) of
        undefined -> true;
        {Name, Node} -> Node =:= node() andalso ets:lookup(ra_state, Name) =:= []
    end]))."#;

impl Inventory {
    /// Runs `command` (`rabbitmqctl`, or `docker exec broker rabbitmqctl`, split into words) and reads the queues and
    /// policies of a virtual host, and the server's clock. Blocks.
    ///
    /// Errors: `INVALID_OPTION` if the command cannot be run, fails, or answers something else.
    pub fn from_rabbitmqctl(command: &[String], vhost: &str) -> Result<Self> {
        let list = |what: &str, columns: &[&str]| {
            let mut arguments = vec![what, "--vhost", vhost, "--formatter", "json", "--quiet"];
            arguments.extend(columns);
            run(command, &arguments)
        };
        let queues = list("list_queues", &["name", "policy"])?;
        let policies = list("list_policies", &[])?;
        let operator_policies = list("list_operator_policies", &[])?;
        let mut inventory = Self::read(&queues, &policies, &operator_policies)?;
        let asked = Timestamp::now();
        let clock = run(command, &["--quiet", "eval", "os:system_time(microsecond)."])?;
        if let Ok(micros) = clock.trim().parse() {
            inventory.set_clock(Timestamp::from_micros(micros), asked, Timestamp::now());
        }
        // Where a version does not know what is asked here, the rest is worth having.
        if let Ok(printed) = run(command, &["--quiet", "eval", &LEADERLESS.replace("VHOST", &quoted(vhost))]) {
            inventory.set_leaderless(&printed);
        }
        Ok(inventory)
    }
}

/// A string of Erlang.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn run(command: &[String], arguments: &[&str]) -> Result<String> {
    let refuse = |message: String| {
        Error::new(ErrorKind::InvalidOption, message)
            .field("rabbitmqctl", command.join(" "))
            .remedy("give a command that reaches the broker as its operator, such as `docker exec broker rabbitmqctl`")
    };
    let (program, first) = command.split_first().ok_or_else(|| refuse("no command is named".to_owned()))?;
    let output = Command::new(program)
        .args(first)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| refuse(format!("the command cannot be run: {e}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing").to_owned();
        return Err(refuse(format!("{} failed and said: {said}", arguments.first().unwrap_or(&""))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
