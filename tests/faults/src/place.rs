//! Where a case takes place, and what can be done to that place.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use crate::case::{Case, Ground};
use crate::clocks::Clocks;
use crate::outbox::Servers;
use crate::proxy::Proxy;
use crate::servers::{Refused, Server};

const ALARM: &str = "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).";
const NO_ALARM: &str = "rabbit_alarm:clear_alarm({resource_limit, memory, node()}).";
/// Has every quorum queue without a leader elect one, or its process start; how many these were.
const ELECT: &str = "length([begin catch rabbit_quorum_queue:recover(<<\"/\">>, [Q]), catch ra:trigger_election(Id) end
    || Q <- rabbit_amqqueue:list(), amqqueue:is_quorum(Q), {N, _} = Id <- [amqqueue:get_pid(Q)],
    ra_leaderboard:lookup_leader(N) =:= undefined]).";
/// Of the file system that is filled.
const SMALL: &str = "size=64m";

/// A broker's URL, and what stands behind it. Gone when it is dropped.
pub(crate) struct Place {
    pub(crate) url: String,
    vhost: Option<(Server, String)>,
    private: Option<(Rc<Servers>, &'static str)>,
    pub(crate) proxy: Option<Proxy>,
    /// The database of handlers with an inbox.
    pub(crate) store: Option<String>,
    pub(crate) clocks: Option<Clocks>,
    disk: Option<Disk>,
    _folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new(case: &Case, servers: &Rc<Servers>) -> Result<Self, Refused> {
        let failed = |error: std::io::Error| Refused::Failed(error.to_string());
        let folder = tempfile::tempdir().map_err(failed)?;
        let clocks = (case.ground == Ground::Clocked).then(|| Clocks::new(folder.path())).transpose()?;
        let disk = (case.ground == Ground::SmallDisk).then(|| Disk::mount(folder.path())).transpose()?;
        let (mut private, mut vhost, mut proxy) = (None, None, None);
        let url = if !case.server.is_rabbitmq() {
            let folder = disk.as_ref().map_or(folder.path(), |disk| &disk.at);
            format!("sqlite:{}", folder.join("events.db").display())
        } else if case.ground == Ground::Private {
            let url = servers.broker_of(case.server.name)?;
            servers.may_disturb(case.server.name)?;
            private = Some((servers.clone(), case.server.name));
            url
        } else {
            let (url, name) = case.server.vhost()?;
            vhost = name.map(|name| (case.server.clone(), name));
            if case.ground == Ground::Proxied {
                let (before, url) = Proxy::before(&url).map_err(Refused::Skip)?;
                proxy = Some(before);
                url
            } else {
                url
            }
        };
        let store = case.with_inbox().then(|| servers.url("postgres")).transpose()?;
        Ok(Self { url, vhost, private, proxy, store, clocks, disk, _folder: folder })
    }

    /// What lies between the clients and the broker.
    pub(crate) fn proxy(&self) -> Result<&Proxy, Refused> {
        self.proxy.as_ref().ok_or_else(|| Refused::Failed("there is no proxy".to_owned()))
    }

    /// Closes every client's connection to this place. Only where it is ours alone: others use the server too.
    pub(crate) fn close_connections(&self) -> Result<(), Refused> {
        if let Some((servers, name)) = &self.private {
            return servers.ctl(name, &["close_all_connections", "fault rig"]).map(drop);
        }
        let (server, vhost) = self.vhost()?;
        server.ctl(&["close_all_connections", "-p", vhost, "fault rig"])
    }

    /// Deletes a queue with everything in it, whoever consumes it.
    pub(crate) fn delete_queue(&self, name: &str) -> Result<(), Refused> {
        let (server, vhost) = self.vhost()?;
        server.ctl(&["delete_queue", "-p", vhost, name])
    }

    /// `kill -9` of the broker, and starts it again; returns when it answers.
    pub(crate) fn restart_broker(&self) -> Result<(), Refused> {
        let (servers, name) = self.private()?;
        servers.restart(name)
    }

    /// Helps quorum queues that came back without a leader, as an operator would; how many.
    pub(crate) fn elect_leaders(&self) -> Result<u64, Refused> {
        let (servers, name) = self.private()?;
        let said = servers.ctl(name, &["eval", ELECT])?;
        said.trim().parse().map_err(|_| Refused::Failed(format!("{name}: {said}")))
    }

    /// Has the broker believe that it has no memory left, or that it has again.
    pub(crate) fn alarm(&self, on: bool) -> Result<(), Refused> {
        let (servers, name) = self.private()?;
        servers.ctl(name, &["eval", if on { ALARM } else { NO_ALARM }]).map(drop)
    }

    /// Takes all the room that is left on its disk, or gives it back.
    pub(crate) fn fill(&self, full: bool) -> Result<(), Refused> {
        let disk = self.disk.as_ref().ok_or_else(|| Refused::Failed("the disk is not ours to fill".to_owned()))?;
        disk.fill(full).map_err(|e| Refused::Failed(e.to_string()))
    }

    /// Has its disk take nothing any more, or again. Only while nobody has a file there open.
    pub(crate) fn read_only(&self, on: bool) -> Result<(), Refused> {
        let disk = self.disk.as_ref().ok_or_else(|| Refused::Failed("the disk is not ours to lock".to_owned()))?;
        disk.mount_again(if on { "remount,ro" } else { "remount,rw" })
    }

    fn vhost(&self) -> Result<(&Server, &str), Refused> {
        let ours = self.vhost.as_ref().map(|(server, name)| (server, name.as_str()));
        ours.ok_or_else(|| Refused::Skip("the virtual host is not ours to disturb".to_owned()))
    }

    fn private(&self) -> Result<(&Servers, &'static str), Refused> {
        let ours = self.private.as_ref().map(|(servers, name)| (&**servers, *name));
        ours.ok_or_else(|| Refused::Skip("the server is not ours to disturb".to_owned()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((server, name)) = &self.vhost else { return };
        for what in ["delete_vhost", "delete_user"] {
            if let Err(Refused::Failed(why) | Refused::Skip(why)) = server.ctl(&[what, name]) {
                eprintln!("{what} {name}: {why}");
            }
        }
    }
}

/// A small file system in memory.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(folder: &Path) -> Result<Self, Refused> {
        let at = folder.join("disk");
        std::fs::create_dir(&at).map_err(|e| Refused::Failed(e.to_string()))?;
        mount(Command::new("mount").args(["-t", "tmpfs", "-o", SMALL, "tmpfs"]).arg(&at)).map_err(Refused::Skip)?;
        Ok(Self { at })
    }

    fn mount_again(&self, how: &str) -> Result<(), Refused> {
        mount(Command::new("mount").args(["-o", how]).arg(&self.at)).map_err(Refused::Failed)
    }

    fn fill(&self, full: bool) -> std::io::Result<()> {
        use std::io::{ErrorKind, Write as _};
        let ballast = self.at.join("ballast");
        if !full {
            return std::fs::remove_file(ballast);
        }
        let mut file = std::fs::File::create(ballast)?;
        let mut size = 1 << 20;
        while size > 0 {
            match file.write(&vec![0; size]) {
                Ok(_) => {}
                // What is left is smaller than this.
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn mount(command: &mut Command) -> Result<(), String> {
    let done = command.output().map_err(|e| format!("mount: {e}"))?;
    let said = || String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() { Ok(()) } else { Err(said()) }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is not unmounted shows: its folder cannot be removed then.
        if let Err(error) = Command::new("umount").arg("-l").arg(&self.at).output() {
            eprintln!("{} stays mounted: {error}", self.at.display());
        }
    }
}
