//! A domain's controller in a node of a lab.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::{Daemon, Lab, output, weft};

/// A domain in a folder of its own, which goes with the value.
pub struct Controller {
    folder: PathBuf,
    address: String,
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It may be gone.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Controller {
    /// Makes a domain of AS 64601 whose controller is at this address; nothing runs yet.
    ///
    /// # Panics
    /// Where `weft controller init` fails.
    pub fn init(name: &str, address: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("weft-domain-{}-{number}", std::process::id());
        let controller = Self {
            folder: std::env::temp_dir().join(folder),
            address: address.to_owned(),
        };
        controller.weft(&format!(
            "controller init --name {name} --asn 64601 --administrator 64512 --vnis 10000-19999 --address {address} --lease 2s"
        ));
        controller
    }

    /// Where a router may keep its state, beside the controller's own.
    pub fn state(&self) -> PathBuf {
        self.folder.join("routers")
    }

    /// What `weft WORDS` writes, with the controller's folder: before it runs, since from here nobody reaches it in its node.
    ///
    /// # Panics
    /// Where it fails.
    pub fn weft(&self, words: &str) -> String {
        let mut command = Command::new(weft());
        command.args(words.split_whitespace());
        command.arg("--folder").arg(&self.folder);
        output(&mut command).trim().to_owned()
    }

    /// Runs it in a node.
    pub fn run(&self, lab: &Lab, node: &str) -> Daemon {
        let program = weft();
        let folder = self.folder.to_str().unwrap();
        let words = [
            program.to_str().unwrap(),
            "controller",
            "run",
            "--folder",
            folder,
        ];
        lab.daemon(node, Path::new("/usr/bin/env"), &words)
    }

    /// The token of the first operator.
    ///
    /// # Panics
    /// Where there is none.
    pub fn operator(&self) -> String {
        let token = std::fs::read_to_string(self.folder.join("operator.token")).unwrap();
        token.trim().to_owned()
    }

    /// What it answers whoever asks from a node with a token: the status, 0 where there is no answer, and the body.
    ///
    /// # Panics
    /// Where there is no curl.
    pub fn ask(
        &self,
        (lab, node): (&Lab, &str),
        token: &str,
        (method, path): (&str, &str),
        body: &Value,
    ) -> (u16, Value) {
        let mut curl = lab.command(node, "curl");
        curl.args(["-sS", "--max-time", "10", "-X", method, "--cacert"])
            .arg(self.folder.join("authority.pem"))
            .args(["-w", "\n%{http_code}"])
            .args(["-H", &format!("Authorization: Bearer {token}")]);
        if !body.is_null() {
            curl.args(["-d", &body.to_string()]);
        }
        let url = format!("https://{}:8443/api/v1/{path}", self.address);
        let answer = curl.arg(url).output().unwrap();
        let answer = String::from_utf8(answer.stdout).unwrap();
        let (body, status) = answer.rsplit_once('\n').unwrap_or(("", "0"));
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        (status.parse().unwrap_or(0), body)
    }
}
