//! A control API over a table.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use carnet_control::{Access, ControlSocket, Server};
use carnet_e2e::command::{Ended, finish};
use carnet_e2e::programs::Scratch;
use tokio::runtime::Runtime;

use crate::ask;
use crate::memory::Memory;

/// Root alone has a role there.
pub struct Scene {
    pub backend: Arc<Memory>,
    scratch: Scratch,
    /// It ends the server when it is dropped.
    _runtime: Runtime,
}

impl Scene {
    pub fn new() -> Self {
        let scratch = Scratch::new();
        fs::set_permissions(scratch.file("."), fs::Permissions::from_mode(0o755)).unwrap();
        let backend = Memory::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = {
            let _inside = runtime.enter();
            ControlSocket::bind(scratch.file("control.sock")).unwrap()
        };
        let server = Server::new(socket, Arc::clone(&backend), Access::default());
        let down = Arc::clone(&backend);
        runtime.spawn(server.run(async move { down.down.notified().await }));
        Self { backend, scratch, _runtime: runtime }
    }

    /// A command that asks it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ask(arguments);
        command.arg("--socket").arg(self.scratch.file("control.sock"));
        command
    }

    /// What it says.
    pub fn ask(&self, arguments: &[&str]) -> Ended {
        finish(&mut self.command(arguments))
    }

    /// What it says when all is well.
    pub fn told(&self, arguments: &[&str]) -> String {
        let Ended { code, output, errors } = self.ask(arguments);
        assert_eq!((code, &errors[..]), (0, ""), "{arguments:?}: {output}");
        output
    }

    /// A file with this text.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.file(name);
        fs::write(&path, text).unwrap();
        path
    }
}
