//! What processes ask of the daemon.

use std::rc::Rc;

use heliostat_proto::message::{FromDaemon, ToDaemon};
use heliostat_proto::{EnvId, Failure, WorkerId};

use crate::daemon::Daemon;
use crate::named::Gift;
use crate::workers::{How, Why};

impl Daemon {
    /// Serves a message; `false` when this process may not send it, which ends its connection.
    pub(crate) fn on_message(&mut self, from: WorkerId, message: ToDaemon) -> bool {
        let Some(process) = self.processes.get(&from) else { return false };
        let (driver, leaving) = (process.driver, process.leaving);
        let actions = match message {
            ToDaemon::RequestLease { request, .. } if self.stopping || leaving => {
                let failure = Failure::new("NODE_DIED", "the node is stopping");
                self.send(from, FromDaemon::LeaseRefused { request, failure }, Vec::new());
                return true;
            }
            ToDaemon::RequestLease { request, env, .. } if !self.envs.is_known(env) => {
                let failure = Failure::new("RUNTIME_ENV_SETUP", format!("the node knows no runtime environment {env}"));
                self.send(from, FromDaemon::LeaseRefused { request, failure }, Vec::new());
                return true;
            }
            ToDaemon::RequestLease { request, resources, env } => {
                self.schedule.request_lease(from, request, &resources, env)
            }
            ToDaemon::DefineEnv { env, spec } => {
                self.envs.define(env, spec);
                return true;
            }
            ToDaemon::StartAhead { env } => {
                self.start_ahead_for(env);
                return true;
            }
            ToDaemon::CancelLease { request } => self.schedule.cancel_lease(from, request),
            ToDaemon::ReturnLease { lease } => self.schedule.return_lease(from, lease),
            ToDaemon::Waiting(waiting) => self.schedule.worker_waiting(from, waiting),
            ToDaemon::Kill { worker } => {
                if self.schedule.holder(worker) == Some(from) {
                    self.end_child(worker, How::Now);
                }
                return true;
            }
            ToDaemon::LeaseRetriable { lease, retriable } => {
                self.schedule.lease_retriable(from, lease, retriable);
                return true;
            }
            ToDaemon::Lends(lends) => {
                if let Some(process) = self.processes.get_mut(&from) {
                    process.lends = lends;
                }
                return true;
            }
            ToDaemon::StoreLease { request, body, patience } => {
                return self.lease_memory(from, request, &body, patience);
            }
            message @ (ToDaemon::Restore { .. }
            | ToDaemon::RestoreEnd { .. }
            | ToDaemon::Sites { .. }
            | ToDaemon::ReadPart { .. }
            | ToDaemon::Locate { .. }
            | ToDaemon::StoreFree { .. }) => {
                self.on_objects(from, message);
                return true;
            }
            ToDaemon::Connect { request, peer } => {
                self.connect(from, request, peer);
                return true;
            }
            ToDaemon::PutNamed { request, name, ttl, id, blob, refs } => {
                self.put_named(from, request, Gift { name, ttl, id, blob, refs });
                return true;
            }
            ToDaemon::FindNamed { request, name } => {
                self.find_named(from, request, name);
                return true;
            }
            ToDaemon::Namespace { name } => {
                if let Some(process) = self.processes.get_mut(&from) {
                    process.namespace = name;
                }
                return true;
            }
            ToDaemon::ToKeeper(message) => {
                self.on_keeper(from, message);
                return true;
            }
            ToDaemon::Printed { bytes } => {
                if let Some(process) = self.processes.get(&from) {
                    process.conn.printed(bytes as usize);
                }
                return true;
            }
            ToDaemon::State { request } => {
                self.tell_state(from, request);
                return true;
            }
            ToDaemon::Leave if driver => {
                self.leave(from);
                return true;
            }
            ToDaemon::Hello { .. } | ToDaemon::Leave => return false,
        };
        self.perform(actions);
        true
    }

    /// Serves what concerns stored objects.
    fn on_objects(&mut self, from: WorkerId, message: ToDaemon) {
        match message {
            ToDaemon::Restore { request, locators } => self.restore(from, request, locators),
            ToDaemon::RestoreEnd { request } => self.end_restore(from, request),
            ToDaemon::Sites { request, sites } => self.on_sites(from, request, sites),
            ToDaemon::ReadPart { request, locator, start, length } => {
                self.read_part(from, request, &locator, start, length);
            }
            ToDaemon::Locate { request, locator } => self.locate(from, request, &locator),
            ToDaemon::StoreFree { locators } => self.free_objects(locators),
            _ => {}
        }
    }

    /// A driver goes: what its job runs ends now, and when all that this wrote is with the driver, it is told so.
    fn leave(&mut self, driver: WorkerId) {
        let Some(process) = self.processes.get_mut(&driver).filter(|process| !process.leaving) else { return };
        process.leaving = true;
        let conn = Rc::clone(&process.conn);
        let last = self.drivers().next().is_none();
        let mine: Vec<WorkerId> = self
            .children
            .iter()
            .filter(|(_, child)| child.driver.map_or(last, |of| of == driver))
            .map(|(id, _)| *id)
            .collect();
        // Those that are leased are killed by this; the others may leave.
        let mut actions = if last { self.schedule.prestart(0, EnvId::default()) } else { Vec::new() };
        actions.extend(self.schedule.client_gone(driver));
        self.perform(actions);
        for id in &mine {
            self.dismiss(*id, Why::Unneeded);
        }
        let (me, child_gone) = (self.me.clone(), Rc::clone(&self.child_gone));
        self.tasks.spawn(async move {
            loop {
                let gone = child_gone.notified();
                let Some(daemon) = me.upgrade() else { return };
                if mine.iter().all(|id| !daemon.borrow().children.contains_key(id)) {
                    break;
                }
                drop(daemon);
                gone.await;
            }
            conn.send(FromDaemon::Goodbye, Vec::new());
            conn.finish();
        });
    }
}
