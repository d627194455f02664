"""`benches/RESULTS.md` from what `benches/peers.py` measured."""

import math
import statistics

TITLES = {
    "cifar-augment": "CIFAR 32x32, raw pixels: RandAugment(2, 9), pad-crop, flip, normalise to f32 NCHW, cutout",
    "cifar": "CIFAR 32x32, raw pixels: pad-crop, flip, normalise to f32 NCHW, cutout",
    "imagenet-augment": "JPEG photos: RandomResizedCrop 224, flip, RandAugment(2, 9), normalise to f32 NCHW",
    "imagenet": "JPEG photos: RandomResizedCrop 224, flip, normalise to f32 NCHW",
    "imagenet-u8": "JPEG photos: RandomResizedCrop 224, flip, u8 NHWC",
}
OURS = ("ddas-loader bench", "ddas.Loader")
# What a reader must know of a row.
NOTES = {
    "albumentations": {"photos": "resizes without antialias"},
    "kornia-rs": {"photos": "resizes without antialias"},
    "FFCV": {
        "augment": "with torchvision's RandAugment on PIL images, in one process on one core: FFCV has none",
        "photos": "scales with OpenCV's INTER_AREA",
    },
    "SPDL": {"cifar": "torchvision's transforms on PIL images: SPDL has none"},
}
PEERS = ("Pillow", "torchvision v2", "OpenCV", "albumentations", "kornia-rs")


def note(name, title):
    notes = NOTES.get(name, {})
    keys = [title.split("-")[0], "photos" if title.startswith("imagenet") else "", "augment" if "augment" in title else ""]
    return "; ".join(notes[key] for key in keys if key in notes)


def count(value):
    return f"{value:,.0f}"


def ratio(value):
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def table(head, rows, left=1):
    """A Markdown table; the first `left` columns are text, as is the last if its head is "remarks"."""
    marks = ["---" if column < left or name == "remarks" else "---:" for column, name in enumerate(head)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *rows]) + "\n"


def best_of(results, key, names=None):
    """The peer with the highest rate: (name, rate)."""
    rates = {name: result[key] for name, result in results.items() if name not in OURS}
    name = max(rates, key=rates.get, default=None)
    return name, rates.get(name)


def summary(figures):
    rows = []
    for title, (results, _) in figures["one"].items():
        name, rate = best_of(results, "core")
        row = [TITLES[title]]
        row += [count(results[ours]["core"]) if ours in results else "-" for ours in OURS]
        row += [f"{count(rate)} ({name})" if name else "-"]
        row += [ratio(results[ours]["core"] / rate) if name and ours in results else "-" for ours in OURS]
        rows.append(row)
    ratios = [[results[ours]["core"] / best_of(results, "core")[1] for ours in OURS] for results, _ in compared(figures)]
    if ratios:
        means = [ratio(geometric(column)) for column in zip(*ratios)]
        rows.append([f"**geometric mean of {len(ratios)}**", "", "", "", *(f"**{mean}**" for mean in means)])
    head = ["images per second of core time", "`ddas-loader bench`", "`ddas.Loader`", "best peer"]
    return table([*head, "bench / best", "Loader / best"], rows)


def compared(figures):
    """The pipelines that both of ours and some peer ran."""
    return [
        (results, failed)
        for results, failed in figures["one"].values()
        if all(ours in results for ours in OURS) and best_of(results, "core")[0]
    ]


def behind(figures):
    """Every row in which somebody else is the best, and by how much."""
    lines = []
    for title, (results, _) in figures["one"].items():
        name, rate = best_of(results, "core")
        for ours in OURS:
            if name and ours in results and results[ours]["core"] < rate:
                lines.append(f"{TITLES[title]}: {ours} {count(results[ours]['core'])} images per core second, {name} {count(rate)}")
    for side, found in figures["operations"].items():
        for operation, times in found.items():
            peers = {name: times[name] for name in PEERS if name in times}
            name = min(peers, key=peers.get, default=None)
            if name and "ours" in times and times["ours"] > peers[name]:
                lines.append(f"{operation} at {side}x{side}: {times['ours']:.2f} us, {name} {peers[name]:.2f}")
    return lines


def headlines(figures):
    """The figures that matter most, as lines of text."""
    lines = []
    pairs = [(results[ours]["core"] / best_of(results, "core")[1], ours) for results, _ in compared(figures) for ours in OURS]
    for ours in OURS:
        values = [value for value, name in pairs if name == ours]
        if values:
            lines.append(f"{ours}: {ratio(geometric(values))} times the best peer of each of {len(values)} pipelines (geometric mean)")
    for side, found in figures["operations"].items():
        for against, times in (("Pillow", against_pillow(found)), ("the best peer of each", against_best(found))):
            if times:
                lines.append(f"operations at {side}x{side}: {geometric(times):.1f} times as fast as {against} (geometric mean of {len(times)})")
    lost = behind(figures)
    return [*lines, "behind the best peer: " + ("nowhere" if not lost else ""), *(f"  {line}" for line in lost)]


def against_pillow(found):
    return [times["Pillow"] / times["ours"] for times in found.values() if "Pillow" in times and "ours" in times]


def against_best(found):
    return [
        min(times[name] for name in PEERS if name in times) / times["ours"]
        for times in found.values()
        if "ours" in times and any(name in times for name in PEERS)
    ]


def pipeline(figures, title):
    one, failed = figures["one"][title]
    many, failed_many = figures["many"].get(title, ({}, {}))
    cores = figures["cores"]
    head = ["library", "per core second", "images/s, 1 thread"]
    head += [f"images/s, {cores} threads", f"per core second, {cores} threads"] if figures["many"] else []
    best = best_of(one, "core")[1]
    rows = []
    for name in sorted(one, key=lambda name: -one[name]["core"]):
        cells = [f"**{name}**" if name in OURS else name, count(one[name]["core"]), count(one[name]["wall"])]
        if figures["many"]:
            cells += [count(many[name][key]) if name in many else "-" for key in ("wall", "core")]
        rows.append([*cells, ratio(one[name]["core"] / best) if best else "-", note(name, title)])
    text = f"### {TITLES[title]}\n\n" + table([*head, "of best peer", "remarks"], rows)
    for name, reason in {**failed_many, **failed}.items():
        text += f"\n{name}: not available: {reason}\n"
    return text


def stages(figures):
    rows = []
    for title, (results, _) in figures["one"].items():
        found = results.get("ddas-loader bench", {}).get("stages")
        if found:
            rows.append([TITLES[title], *(f"{found[stage]:.1f}" for stage in ("read", "decode", "augment", "write"))])
    return table(["us per image, by the clock", "read", "decode", "augment", "write"], rows)


def geometric(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def operations(figures):
    text = ""
    for side, found in figures["operations"].items():
        rows = []
        for operation, times in found.items():
            ours, peers = times.get("ours"), {name: times[name] for name in PEERS if name in times}
            if ours is None or not peers:
                continue
            name = min(peers, key=peers.get)
            cells = [f"**{times[peer]:.1f}**" if peer == name else f"{times[peer]:.1f}" if peer in times else "-" for peer in PEERS]
            through = f"{times['ddas.apply']:.1f}" if "ddas.apply" in times else "-"
            rows.append([operation, *cells, f"{ours:.2f}", through, ratio(ours / peers[name])])
        text += f"### {side}x{side}\n\n"
        text += table(["operation", *PEERS, "DDAS kernel", "`ddas.apply`", "kernel / best peer"], rows) + "\n"
        if rows:
            slower = sum(value < 1 for value in against_best(found))
            text += (
                f"The geometric mean over these operations: the kernel is {geometric(against_pillow(found)):.1f} times as fast as Pillow and "
                f"{geometric(against_best(found)):.1f} times as fast as the best peer of each; {slower} of {len(rows)} are slower than that.\n\n"
            )
    return text


def limits(figures):
    limits, decoded = figures["limits"], figures["limits"]["decoded"]
    fastest = max(decoded, key=decoded.get)
    rates = ", ".join(f"{name} {count(rate)}" for name, rate in sorted(decoded.items(), key=lambda item: -item[1]))
    copied = limits["copied"] / 1e9
    lines = [
        f"- Copying memory, one thread, 256 MiB: {copied:.1f} GB/s; filling it: {limits['stored'] / 1e9:.1f} GB/s. A batch's f32 image "
        f"has 602,112 bytes at 224x224 and 12,288 at 32x32: storing them alone bounds a core to "
        f"{count(limits['stored'] / 602112)} and {count(limits['stored'] / 12288)} images/s.",
        f"- Decoding these photos whole with libjpeg-turbo, one thread, in images per second of core time: {rates}. A pipeline that decodes "
        f"whole images cannot be faster than about {count(decoded[fastest])}; only one that decodes just what the crop needs can.",
    ]
    found = figures["one"].get("imagenet", ({}, {}))[0].get("ddas-loader bench", {}).get("stages")
    if found and found["decode"]:
        lines.append(
            f"- Our own decoding of the crop alone (stage \"decode\" above, by the clock): {count(1e6 / found['decode'])} images/s; it is "
            f"{100 * found['decode'] / sum(value for name, value in found.items() if name != 'wait'):.0f} % of that pipeline."
        )
    return "\n".join(lines) + "\n"


def spread(figures):
    values = [
        result["spread"] for group in ("one", "many") for results, _ in figures[group].values() for result in results.values()
    ]
    if not values or figures["rounds"] < 2:
        return "One round: how far the figures scatter is not known."
    return (
        f"Between the rounds of a case the rate per core second differed by {100 * statistics.median(values):.1f} % (median over all cases) "
        f"and by {100 * max(values):.1f} % at most (largest minus smallest, of the median)."
    )


def data(figures):
    images, cifar = figures["data"]["images"], figures["data"]["cifar"]
    copies = f", each {images['copies']} times under different names" if images["copies"] > 1 else ""
    return (
        f"- Photos: {images['from']}, {images['images']} JPEGs{copies}; on average {images['kilopixels']:.0f} kilopixels and "
        f"{images['kilobytes']:.0f} kB.\n- 32x32: {cifar['from']}, {cifar['images']} images, {cifar['kept']} samples as raw pixels.\n"
        "- All of it in the page cache. DDAS and FFCV read their own packed files, made from the same images (the JPEGs' bytes are "
        "unchanged); the others read JPEG files, or one mapped array.\n"
    )


def markdown(figures):
    machine, load = figures["machine"], figures["load"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    missing = "".join(f"- {name}: not available: {reason}\n" for name, reason in figures["missing"].items())
    parts = [
        "# Beside the other libraries\n",
        "Written by `benches/peers.py`: every library on the same files, in turn, in one run. Other machines, other figures: run it "
        "on yours.\n",
        f"- {figures['date']}, commit {figures['commit']}: `{figures['command']}`\n"
        f"- {machine['processor']}; {figures['cores']} cores used; {machine['memory']}; {machine['kernel']}\n"
        f"- Load average before, after preparing and at the end: {', '.join(f'{value:.1f}' for value in load)}. Figures by the clock "
        "mean nothing if other work ran beside them; those per core second suffer less, yet caches and memory are shared.\n"
        f"- {versions}\n{missing}{data(figures)}",
    ]
    if figures["one"]:
        parts += [
            "## Pipelines\n",
            "Batches of 128, one thread where nothing else is said. **Images per second of core time**: user and system time of all "
            "threads and child processes, those that wait by spinning included; so it is what one core delivers when others are "
            f"busy too. Medians of {figures['rounds']} round{'s' * (figures['rounds'] > 1)} of {figures['seconds']} s or one batch; while one library runs, all others are "
            f"stopped. {spread(figures)}\n",
            summary(figures),
            "Nobody's start is counted: each program is measured once its first batches have come, ours once every slot of the engine has been "
            "used. `ddas-loader bench` is the engine alone, a new process each round; `ddas.Loader` is a Python program that "
            "receives the batches as NumPy arrays. Peers' batches are taken where they leave them, too: torch tensors, from DALI its "
            "own memory. With one thread torch's DataLoader works in the program itself (`num_workers=0`), which is its cheapest way; with "
            "more it has that many worker processes, and handing f32 batches over is part of the cost.\n",
            *(pipeline(figures, title) for title in figures["one"]),
            "### Where our time goes\n",
            "Stages of `ddas-loader bench`, one thread. They are measured by the clock, so other work on the machine lengthens them. "
            "\"Decode\" is JPEG to pixels of what the crop needs, or raw pixels to an image; \"augment\" resizing and the operations; \"write\" plain "
            "crops, flips, normalising and storing, and of resizing what is done only while storing.\n",
            stages(figures),
        ]
    if figures["operations"]:
        parts += [
            "## Operations\n",
            "Microseconds for one image, one thread, the source unchanged: the fastest of many rounds, and of those the median "
            f"over {figures['rounds']} run{'s' * (figures['rounds'] > 1)}. The fastest peer is bold. The images are the same noise on a slope for all. \"DDAS kernel\" is the call "
            "from Rust into an image that is there already (`benches/kernels.rs`); `ddas.apply` the same from Python on a NumPy array, with its cost per call, as the peers have "
            "theirs. Ratios below 1 mean that we need less time than the best peer.\n",
            operations(figures).rstrip() + "\n",
        ]
    lost = behind(figures)
    parts += [
        "## Where we are not the best\n",
        "".join(f"- {line}\n" for line in lost) or "Nowhere in this run.\n",
        "## Limits of this machine\n",
        limits(figures),
        "## Read this before comparing\n",
        "- Pixels differ. Ours are Pillow's, bit for bit, at every one of these operations; OpenCV's, kornia-rs' and most of albumentations' "
        "are not, and torchvision's on tensors not always. Nobody is charged for that here.\n"
        "- OpenCV's linear resize (albumentations) and kornia-rs' have no antialias: they read four pixels for each that they make, "
        "whatever the scale, and alias. Pillow, torchvision, DALI (as set here) and DDAS filter over the whole area.\n"
        "- ResizedCrop is RandomResizedCrop's crop of 375x300 pixels and its resize, bilinear with antialias. OpenCV (and albumentations) can "
        "average areas instead, which is timed here; kornia-rs has nothing of the kind.\n"
        "- DALI's and FFCV's threads spin while they wait, which costs core time; with one thread they seldom wait here.\n"
        "- FFCV decodes whole images, with the fast and less exact inverse transform of libjpeg-turbo; and by default it encodes JPEGs anew at "
        "quality 90, which is avoided here.\n"
        "- albumentations has no RandAugment: its 14 operations at level 9 of 30 are assembled from its own, some with levels drawn "
        "from a range. DALI's RandAugment is its own.\n"
        "- FFCV's cutout fills with the mean before normalising, the others with zero after it.\n"
        "- kornia-rs warps bytes with linear interpolation whatever it is asked for, so only that is timed.\n"
        "- Python's share of a peer's call counts: nobody uses these libraries without it.\n"
        "- Single operations of OpenCV are the calls a careful user would write (Posterize in NumPy, Blur as a box, which is another filter than "
        "Pillow's), not a library's.\n",
    ]
    return "\n".join(parts)
