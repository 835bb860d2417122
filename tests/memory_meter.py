"""How much memory a piece of work holds at its worst moment."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object]) -> int:
    """Give the peak of CPU memory that `work` allocates through torch, on top of what was there before.

    Counts every allocation of torch's allocator, those inside of operators and of the backward pass included.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        result = work()
    del result
    held = peak = 0
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
