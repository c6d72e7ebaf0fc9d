"""A cable between two machines: what `tc netem` is, for kernels that lack it.

Makes two TUN devices, NEAR and FAR, which the caller moves into the network namespaces of the two
machines, and carries IP packets between them: late, out of order, or not at all. It prints "ready"
when the devices are there. Each line of its input is DELAY JITTER LOSS (milliseconds,
milliseconds, a share of 1), for packets from then on; it ends with its input.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000


def device(name):
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return handle


def main():
    near, far = (device(name) for name in sys.argv[1:3])
    delay = jitter = loss = 0.0
    late = []  # (when, number, device, packet), the next first
    count = 0
    orders = b""
    print("ready", flush=True)
    while True:
        wait = max(0.0, late[0][0] - time.monotonic()) if late else None
        ready, _, _ = select.select([near, far, 0], [], [], wait)
        if 0 in ready:
            read = os.read(0, 4096)
            if not read:
                return
            *lines, orders = (orders + read).split(b"\n")
            for line in lines:
                delay, jitter, loss = (float(word) for word in line.split())
                print("set", flush=True)
        for one, other in ((near, far), (far, near)):
            if one in ready:
                packet = os.read(one, 65536)
                if random.random() >= loss:
                    count += 1
                    when = time.monotonic() + max(0.0, delay + random.uniform(-jitter, jitter)) / 1000
                    heapq.heappush(late, (when, count, other, packet))
        while late and late[0][0] <= time.monotonic():
            _, _, other, packet = heapq.heappop(late)
            try:
                os.write(other, packet)
            except OSError:
                pass  # nobody has put the other end up yet


main()
