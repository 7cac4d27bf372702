//! The write guard in a process of its own: writes from several threads, displaced handlers, foreign faults.
#![allow(unsafe_code)] // writing through a window is what is under test
#![allow(clippy::print_stdout)] // the tests' own processes report to their parent
#![allow(clippy::single_range_in_vec_init)] // lists of ranges, of which some have one

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use heliostat_shm::guard::{GRANULE, Guard, installed, reinstall};
use heliostat_shm::map::{DataMap, ReadMap, Window};
use heliostat_shm::memfd::{Memfd, PAGE};

struct Fixture {
    guard: Guard,
    data: Arc<DataMap>,
    stored: ReadMap,
}

fn fixture(size: usize) -> Fixture {
    let memfd = Memfd::create("test", size as u64).unwrap();
    let window = Arc::new(Window::new(&memfd).unwrap());
    Fixture {
        guard: Guard::watch(window).unwrap(),
        data: Arc::new(DataMap::new(&memfd).unwrap()),
        stored: ReadMap::new(&memfd).unwrap(),
    }
}

impl Fixture {
    fn write(&self, offset: u64, value: u8) {
        let address = self.guard.window().address(offset, 1).unwrap().cast_mut();
        // SAFETY: the guard makes the page writable; no reference to it exists.
        unsafe { address.write_volatile(value) };
    }

    fn read(&self, offset: u64) -> u8 {
        // SAFETY: mapped; no reference to it exists.
        unsafe { self.guard.window().address(offset, 1).unwrap().read_volatile() }
    }

    fn store(&self, offset: u64, value: u8) {
        self.data.exclusive(offset, 1).unwrap().bytes_mut()[0] = value;
    }
}

/// Runs one of the ignored tests below in a process of its own; gives the signal that ended it, if one did.
fn run_alone(name: &str) -> (Option<i32>, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    (
        output.status.signal(),
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    )
}

#[test]
fn a_write_stays_private_is_reported_and_healed() {
    let f = fixture(2 * GRANULE + 3 * PAGE as usize);
    f.store(5, 7);
    assert!(!f.guard.is_dirty());
    assert_eq!(f.read(5), 7);
    f.write(5, 9);
    f.write(2 * GRANULE as u64 + 2 * PAGE, 3); // in the last, partial granule
    assert!(f.guard.is_dirty());
    assert_eq!((f.read(5), f.stored.bytes(5, 1).unwrap()[0]), (9, 7));
    let last = 2 * GRANULE as u64 + 2 * PAGE;
    let expected = [0..PAGE, last..last + PAGE];
    assert_eq!(f.guard.scan().unwrap(), expected);
    assert_eq!(f.guard.heal().unwrap(), expected);
    assert!(!f.guard.is_dirty());
    assert_eq!(f.read(5), 7);
    assert!(f.guard.scan().unwrap().is_empty() && f.guard.heal().unwrap().is_empty());
    let mut count = [0; 8];
    assert_eq!(rustix::io::read(f.guard.wake_fd(), &mut count).unwrap(), 8);
    assert_eq!(u64::from_ne_bytes(count), 2);
}

#[test]
fn a_second_write_in_an_open_granule_is_reported_too_and_a_recycled_extent_reads_the_store() {
    let f = fixture(GRANULE);
    f.write(0, 1);
    f.write(64 * PAGE, 99); // doesn't fault: the granule is open
    f.store(64 * PAGE, 55); // the extent is reused before anyone looked
    assert_eq!(f.read(64 * PAGE), 99);
    assert_eq!(f.guard.heal().unwrap(), [0..PAGE, 64 * PAGE..65 * PAGE]);
    assert_eq!(f.read(64 * PAGE), 55);
    f.write(64 * PAGE, 1);
    assert_eq!(f.guard.heal().unwrap(), [64 * PAGE..65 * PAGE]);
}

#[test]
fn system_calls_that_write_are_refused_on_closed_granules() {
    let f = fixture(GRANULE);
    let zero = std::fs::File::open("/dev/zero").unwrap();
    let address = f.guard.window().address(0, 8).unwrap().cast_mut();
    // SAFETY: the kernel checks the address itself.
    let read = unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(&zero), address.cast(), 8) };
    assert_eq!(read, -1);
    assert!(!f.guard.is_dirty());
}

#[test]
fn threads_that_write_while_another_heals_lose_no_report() {
    let f = fixture(4 * GRANULE);
    let pages = 4 * GRANULE / PAGE as usize;
    let written = AtomicUsize::new(0);
    let mut reported = std::collections::HashSet::new();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|thread| {
                let (f, written) = (&f, &written);
                scope.spawn(move || {
                    for page in (thread..pages).step_by(3) {
                        f.write(page as u64 * PAGE, 1);
                        written.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            for range in f.guard.heal().unwrap() {
                reported.extend(range.step_by(PAGE as usize));
            }
        }
    });
    for range in f.guard.heal().unwrap() {
        reported.extend(range.step_by(PAGE as usize));
    }
    assert_eq!((written.load(Ordering::SeqCst), reported.len()), (pages, pages));
    assert!(!f.guard.is_dirty());
}

#[test]
fn scattered_writes_do_not_run_out_of_mappings() {
    let f = fixture(64 * GRANULE);
    for page in (0..(64 * GRANULE) as u64 / PAGE).step_by(2) {
        f.write(page * PAGE, 1);
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    assert!(maps < 2_000, "{maps} mappings");
    assert_eq!(f.guard.heal().unwrap().len(), 64 * GRANULE / PAGE as usize / 2);
}

#[test]
fn windows_come_and_go_beside_each_other() {
    let keep = fixture(GRANULE);
    for _ in 0..heliostat_shm::guard::MAX_WINDOWS * 2 {
        let f = fixture(GRANULE);
        f.write(0, 1);
        assert_eq!(f.guard.heal().unwrap().len(), 1);
    }
    keep.write(0, 1);
    assert!(keep.guard.is_dirty());
}

static FOREIGN: AtomicUsize = AtomicUsize::new(0);
static CHAINED: AtomicUsize = AtomicUsize::new(0);

/// Another addon's handler: counts, and calls for every fault the handler that it displaced, as ours does.
extern "C" fn foreign(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    FOREIGN.fetch_add(1, Ordering::SeqCst);
    let chained = CHAINED.load(Ordering::SeqCst);
    if chained > 1 {
        // SAFETY: the saved handler had SA_SIGINFO set.
        let next: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = unsafe { std::mem::transmute(chained) };
        next(signal, info, context);
    } else {
        // SAFETY: ends the process the default way when the instruction runs again.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    }
}

fn displace() {
    // SAFETY: a valid handler of three arguments.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = foreign as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut before: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut before), 0);
        CHAINED.store(before.sa_sigaction, Ordering::SeqCst);
    }
}

#[test]
#[ignore = "run in a process of its own by the test below"]
fn alone_displaced_and_reinstalled() {
    let f = fixture(GRANULE);
    displace();
    assert!(!installed());
    reinstall().unwrap();
    assert!(installed());
    f.write(0, 1);
    assert_eq!(f.guard.heal().unwrap().len(), 1);
    assert_eq!(FOREIGN.load(Ordering::SeqCst), 0);
    // Without a reinstall the displacing handler passes the fault on to ours.
    displace();
    reinstall().unwrap();
    displace();
    f.write(0, 1);
    assert!(f.guard.is_dirty());
    println!("displaced fine");
}

#[test]
#[ignore = "run in a process of its own by the test below"]
fn alone_foreign_fault_with_a_chain_that_loops() {
    let _f = fixture(GRANULE);
    displace(); // saved ours
    reinstall().unwrap(); // ours saved it
    println!("about to fault");
    // SAFETY: not safe at all: a write to an unmapped address is what must end this process.
    unsafe { std::ptr::without_provenance_mut::<u8>(64).write_volatile(1) };
}

#[test]
#[ignore = "run in a process of its own by the test below"]
fn alone_foreign_fault() {
    let _f = fixture(GRANULE);
    println!("about to fault");
    // SAFETY: as above.
    unsafe { std::ptr::without_provenance_mut::<u8>(64).write_volatile(1) };
}

#[test]
fn a_displaced_handler_is_put_back_in_front() {
    let (signal, output) = run_alone("alone_displaced_and_reinstalled");
    assert!(signal.is_none() && output.contains("displaced fine"), "{output}");
}

#[test]
fn a_foreign_fault_still_ends_the_process() {
    for name in ["alone_foreign_fault", "alone_foreign_fault_with_a_chain_that_loops"] {
        let (signal, output) = run_alone(name);
        assert!(output.contains("about to fault"), "{output}");
        assert!(matches!(signal, Some(libc::SIGSEGV | libc::SIGABRT)), "{name}: {signal:?} {output}");
    }
}
