//! Child processes of our executable: started, killed without warning, stopped in good order.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bowline_broker::exit::{Exit, Failure};

use super::running::Running;
use crate::home::Home;

/// A broker that can be killed and started again at the same address with the same data.
pub struct Broker {
    program: PathBuf,
    data: PathBuf,
    log: PathBuf,
    address: SocketAddr,
    pub process: Running,
}

/// A daemon that can be killed and started again on the same home.
pub struct Host {
    program: PathBuf,
    pub name: &'static str,
    pub home: Home,
    pub process: Running,
}

impl Broker {
    /// On `data`, at an address of its own choice.
    ///
    /// # Errors
    /// If it does not say in time that it listens.
    pub async fn start(program: &Path, data: &Path, log: &Path) -> Result<Self, Failure> {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (running, address) = serve(program, data, log, anywhere).await?;
        Ok(Self {
            program: program.to_owned(),
            data: data.to_owned(),
            log: log.to_owned(),
            address,
            process: running,
        })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// # Errors
    /// If it does not say in time that it listens.
    pub async fn restart(&mut self) -> Result<(), Failure> {
        (self.process, self.address) =
            serve(&self.program, &self.data, &self.log, self.address).await?;
        Ok(())
    }
}

impl Host {
    /// On the home `dir/name`.
    ///
    /// # Errors
    /// If it does not say in time that it is up.
    pub async fn start(program: &Path, dir: &Path, name: &'static str) -> Result<Self, Failure> {
        let home = Home::at(&dir.join(name))?;
        let running = up(program, name, &home).await?;
        Ok(Self {
            program: program.to_owned(),
            name,
            home,
            process: running,
        })
    }

    /// # Errors
    /// If it does not say in time that it is up.
    pub async fn restart(&mut self) -> Result<(), Failure> {
        self.process = up(&self.program, self.name, &self.home).await?;
        Ok(())
    }
}

async fn serve(
    program: &Path,
    data: &Path,
    log: &Path,
    listen: SocketAddr,
) -> Result<(Running, SocketAddr), Failure> {
    let args: Vec<OsString> = vec![
        "broker".into(),
        "serve".into(),
        "--json".into(),
        "--listen".into(),
        listen.to_string().into(),
        "--data".into(),
        data.into(),
    ];
    let (running, said) = Running::start("the broker", program, args, None, log).await?;
    let address = said["listening"]
        .as_str()
        .and_then(|address| address.parse().ok())
        .ok_or_else(|| Failure::new(Exit::Failed, "no_address", "the broker named no address"))?;
    Ok((running, address))
}

async fn up(program: &Path, name: &str, home: &Home) -> Result<Running, Failure> {
    let args = ["up", "--foreground", "--json"]
        .map(OsString::from)
        .to_vec();
    let log = home.dir().with_extension("log");
    let name = format!("the daemon of {name}");
    let (running, _) = Running::start(&name, program, args, Some(home), &log).await?;
    Ok(running)
}
