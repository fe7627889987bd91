//! An export as it was asked for, and where clients find it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use cache_engine::backend::address::Endpoint;
use cache_engine::frontend::nbd::{ExportAddress, Transport};
use cache_engine::frontend::nvme::NvmeTcpExport;

/// An export as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct ExportUri {
    text: String,
    place: ExportPlace,
}

/// What it is, by the protocol that clients speak.
#[derive(Clone, Debug)]
pub(crate) enum ExportPlace {
    Nbd(ExportAddress),
    NvmeTcp(NvmeTcpExport),
}

impl ExportUri {
    /// What it is.
    pub(crate) fn place(&self) -> &ExportPlace {
        &self.place
    }

    /// What NBD clients ask for, and how they come; none for hosts of NVMe.
    pub(crate) fn as_nbd(&self) -> Option<(&str, &Transport)> {
        match &self.place {
            ExportPlace::Nbd(address) => Some((&address.name, &address.transport)),
            ExportPlace::NvmeTcp(_) => None,
        }
    }

    /// What hosts of NVMe connect to; none for NBD clients.
    pub(crate) fn as_nvme_tcp(&self) -> Option<&NvmeTcpExport> {
        match &self.place {
            ExportPlace::Nbd(_) => None,
            ExportPlace::NvmeTcp(export) => Some(export),
        }
    }

    /// Where NBD clients find it: what was asked for, but for a port that the system chose.
    pub(crate) fn at(&self, bound: &Transport) -> String {
        match (self.as_nbd(), bound) {
            (Some((name, Transport::Tcp { port: 0, host })), Transport::Tcp { port, .. }) => {
                ExportAddress::tcp(host, *port, name).to_string()
            }
            _ => self.text.clone(),
        }
    }

    /// Where hosts find it, as [`at`](Self::at).
    pub(crate) fn at_address(&self, bound: SocketAddr) -> String {
        match self.as_nvme_tcp() {
            Some(export) if export.port() == 0 => {
                let host = export.endpoint.host.clone();
                let endpoint = Endpoint { host, port: Some(bound.port()) };
                NvmeTcpExport { endpoint, ..export.clone() }.to_string()
            }
            _ => self.text.clone(),
        }
    }
}

impl FromStr for ExportUri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = if text.starts_with(NvmeTcpExport::SCHEME) {
            text.parse().map(ExportPlace::NvmeTcp).map_err(|error| format!("{error}"))
        } else {
            text.parse().map(ExportPlace::Nbd).map_err(|error| format!("{error}"))
        };
        Ok(Self { text: text.to_owned(), place: place? })
    }
}

impl fmt::Display for ExportUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
