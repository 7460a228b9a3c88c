//! No files left. One test, for the limit is the process's.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    fs::File,
    io::{self, Read},
    net::TcpStream,
    os::unix::fs::FileExt,
    thread,
    time::Duration,
};

use carnet_proxy::{Options, Report, Service, channel, raise_file_limit};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{runtime, sync::oneshot, time::timeout};

#[test]
fn a_service_without_files_waits_quietly_and_goes_on() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let lower = || setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum }).unwrap();
    lower();
    assert_eq!(raise_file_limit().unwrap(), maximum.unwrap_or(u64::MAX));
    assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    lower();

    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let options = Options { max_flows: Some(10_000), ..Options::default() };
    let service = Service::bind(&["127.0.0.1:0".parse().unwrap()], options).unwrap();
    let address = service.addresses().unwrap()[0];
    let (reporter, mut reports) = channel(10);
    let (shutdown, told) = oneshot::channel::<()>();
    let running = runtime.spawn(service.run(reporter, async { drop(told.await) }));
    let mut report = || {
        let report = runtime.block_on(async { timeout(Duration::from_secs(30), reports.recv()).await });
        report.expect("no report in 30 s").expect("the service runs")
    };
    let time = ProcessTime::new();

    // All files, then one back, which the client takes: none is left with which to accept it.
    let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).take(1000).collect();
    assert!(files.len() < 100);
    files.pop();
    let mut client = TcpStream::connect(address).unwrap();
    match report() {
        Report::AcceptFailed { flows: 0, error } => assert_eq!(error.raw_os_error(), Some(EMFILE), "{error}"),
        report => panic!("{report:?}"),
    }

    let before = time.ticks();
    thread::sleep(Duration::from_millis(500)); // nothing is waited for: this is the time in which it might spin
    let used = time.ticks() - before;
    assert!(used <= 10, "{used} ticks of 50 were used for doing nothing");

    files.clear();
    match report() {
        Report::Unredirected { peer, .. } => assert_eq!(peer, client.local_addr().unwrap()),
        report => panic!("said more than once, or something else: {report:?}"),
    }
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    drop(shutdown);
    assert_eq!(runtime.block_on(running).unwrap().unwrap().accepted, 1);
}

/// Opened while there still are files.
struct ProcessTime(File);

impl ProcessTime {
    fn new() -> Self {
        Self(File::open("/proc/self/stat").unwrap())
    }

    /// User and system time, in ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let mut stat = [0; 1024];
        let length = self.0.read_at(&mut stat, 0).unwrap();
        let stat = str::from_utf8(&stat[..length]).unwrap();
        let (_, fields_from_3) = stat.rsplit_once(')').unwrap();
        fields_from_3.split_whitespace().skip(14 - 3).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
    }
}

const EMFILE: i32 = 24;
