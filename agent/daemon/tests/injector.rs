use sabotd::kernel::{Injector, InjectorOptions};
#[test]
fn loads() {
    let t = std::time::Instant::now();
    let (injector, _taps) = Injector::load(&InjectorOptions {
        hook: sabotd::kernel::HookKind::Tcx,
        line_bytes: 1 << 26,
        line_bytes_total: 1 << 28,
    })
    .unwrap();
    println!("{:?} {:?}", injector.incidents(), t.elapsed());
    for p in aya::programs::loaded_programs().flatten() {
        println!(
            "{:?} verified {:?} jited {} xlated {:?}",
            p.name_as_str(),
            p.verified_instruction_count(),
            p.size_jitted(),
            p.size_translated()
        );
    }
}
