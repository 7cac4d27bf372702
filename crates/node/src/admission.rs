//! Who may talk to the daemon: the first message of a connection and its answer.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use heliostat_proto::message::{FromDaemon, PROTOCOL_VERSION, Role, ToDaemon, Welcome};
use heliostat_proto::{EnvId, Failure, JobId, WorkerId};
use heliostat_shm::bell::{Bell, BellError};
use heliostat_wire::Inbox;
use rustix::io::Errno;
use rustix::net::UCred;

use crate::conn::Conn;
use crate::daemon::{Daemon, Process, Shared};
use crate::named::DEFAULT_NAMESPACE;
use crate::store::Seat;
use crate::workers::Why;

/// Serves a connection from its first byte to its last.
pub(crate) async fn serve(shared: Shared, socket: OwnedFd) {
    let peer = rustix::net::sockopt::socket_peercred(&socket);
    let Ok(conn) = Conn::new(socket) else { return };
    let mut inbox = Inbox::default();
    let patience = shared.borrow().config.hello_timeout;
    let Ok(Some(hello)) = tokio::time::timeout(patience, conn.first(&mut inbox)).await else { return };
    match admit(&shared, &conn, &hello, peer).await {
        Ok(id) => {
            conn.serve(&mut inbox, |message| shared.borrow_mut().on_message(id, message)).await;
            shared.borrow_mut().disconnected(id);
        }
        Err(failure) => {
            conn.send(FromDaemon::Refused(failure), Vec::new());
            conn.finish();
            conn.serve(&mut inbox, |_| false).await;
        }
    }
}

async fn admit(
    shared: &Shared,
    conn: &Rc<Conn>,
    hello: &ToDaemon,
    peer: Result<UCred, Errno>,
) -> Result<WorkerId, Failure> {
    let Some(peer) = peer.ok().filter(|peer| peer.uid == rustix::process::getuid()) else {
        return Err(Failure::new("AUTHENTICATION", "this node belongs to another user"));
    };
    let pid = peer.pid.as_raw_nonzero().get().unsigned_abs();
    let (id, role) = shared.borrow_mut().identify(hello)?;
    // A worker that gets no seat leaves, and its end is a failed start.
    let seat = Daemon::seat(shared, pid).await?;
    shared.borrow_mut().enter(conn, id, role, pid, seat)
}

impl Daemon {
    fn identify(&mut self, hello: &ToDaemon) -> Result<(WorkerId, Role), Failure> {
        let ToDaemon::Hello { version, role } = *hello else {
            return Err(Failure::new("TRANSPORT", "the first message of a connection must be the greeting"));
        };
        if version != PROTOCOL_VERSION {
            let message =
                format!("this process speaks version {version} of the protocol, the node version {PROTOCOL_VERSION}");
            return Err(Failure::new("TRANSPORT", message).hint("Use the same version of heliostat everywhere."));
        }
        if self.stopping {
            return Err(Failure::new("NODE_DIED", "the node is stopping"));
        }
        let id = match role {
            Role::Driver => WorkerId(crate::random()),
            Role::Worker { token } => self.redeem(token)?,
        };
        Ok((id, role))
    }

    fn enter(&mut self, conn: &Rc<Conn>, id: WorkerId, role: Role, pid: u32, seat: Seat) -> Result<WorkerId, Failure> {
        let driver = role == Role::Driver;
        let env = self.children.get(&id).map(|child| child.env).unwrap_or_default();
        // Since it was identified, the store may have taken its time.
        let unwanted = self.children.get(&id).is_none_or(|child| child.ending.is_some());
        if self.stopping || (!driver && unwanted) {
            self.store.leave(seat.client);
            return Err(Failure::new("NODE_DIED", "the node is stopping"));
        }
        let made = Bell::create().and_then(|bell| bell.share().map(|fds| (bell, fds)));
        let (bell, bell_fds) = made.map_err(|error: BellError| {
            self.store.leave(seat.client);
            Failure::new("TRANSPORT", error.to_string()).hint("raise the limit of open files (ulimit -n)")
        })?;
        if let Some(child) = self.children.get_mut(&id) {
            child.connected = true;
            child.oom_counter = self.memory.counter_of(pid);
        }
        let welcome = Welcome {
            worker: id,
            keeper: self.keeper.id(),
            node: self.node,
            job: if driver { JobId(crate::random()) } else { JobId::default() },
            epoch: self.store.next_epoch(),
            inline_limit: self.config.inline_limit,
            put_timeout: u64::try_from(self.config.put_timeout.as_millis()).unwrap_or(u64::MAX),
            seat: seat.params,
            packages: self.envs.packages(),
            env: self.envs.spec(env),
        };
        let process = Process {
            conn: Rc::clone(conn),
            driver,
            pid,
            seat: seat.client,
            bell,
            peers: BTreeSet::new(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            lends: false,
            leaving: false,
        };
        self.processes.insert(id, process);
        let fds = seat.fds.into_iter().chain(bell_fds).collect();
        conn.send(FromDaemon::Welcome(Box::new(welcome)), fds);
        if driver {
            self.claim_output(id);
            self.start_ahead();
        } else {
            let actions = self.schedule.worker_ready(id, pid, env);
            self.perform(actions);
        }
        Ok(id)
    }

    /// A token is good for one connection of the child that got it.
    fn redeem(&mut self, token: u128) -> Result<WorkerId, Failure> {
        let unknown = || Failure::new("AUTHENTICATION", "no worker was started with this token");
        let id = self.tokens.remove(&token).ok_or_else(unknown)?;
        self.children.get(&id).filter(|child| child.ending.is_none()).map(|_| id).ok_or_else(unknown)
    }

    /// The connection of an admitted process ended.
    fn disconnected(&mut self, id: WorkerId) {
        if self.children.contains_key(&id) {
            // What it held in the store is given up when its process is gone, it may still write there. A worker ends by
            // itself when its connection does.
            self.dismiss(id, Why::Disconnected);
        } else {
            self.process_gone(id);
        }
        if self.drivers().next().is_none() {
            let actions = self.schedule.prestart(0, EnvId::default());
            self.perform(actions);
        }
    }
}
