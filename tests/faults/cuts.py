"""The command that cuts two replicating IdM servers apart under load and shows what each of them ends with.

python -m tests.faults.cuts [--cuts 50] [--seed N] [--no-settle] [--json]; exit 1 when a server is stale, which is what
--no-settle is there to show.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import ExitStack
from typing import Annotated

import typer

from passrelay_ops.report import Report
from tests.faults.campaign import PER_SECOND, Campaign
from tests.faults.schedule import schedule
from tests.lab.broker import Broker
from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder
from tests.lab.network import Reservations
from tests.lab.relay import Relay
from tests.lab.replication import Suppliers
from tests.lab.tiers import short_tiers


def main(
    cuts: Annotated[int, typer.Option(min=1, help="How many cuts.")] = 50,
    seed: Annotated[int | None, typer.Option(help="The seed to repeat; default: a new one.")] = None,
    settle: Annotated[bool, typer.Option(help="--no-settle shows what settling is good for.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document as the last line of stdout.")] = False,
) -> None:
    """Cut two replicating directories apart again and again under load, heal, settle, and compare with AD."""
    report = Report("faults", as_json=as_json)
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    with report, ExitStack() as stack:
        folder, reservations = LabFolder(), Reservations()
        stack.callback(folder.remove)
        stack.callback(reservations.release)
        ca = CertificateAuthority(folder.path / "ca")
        broker = Broker(folder.path / "broker", reservations, ca)
        suppliers = Suppliers(folder.path, reservations, ca, storage_scheme="SSHA512")
        stack.callback(broker.close)
        stack.callback(suppliers.close)
        broker.start()
        suppliers.start()
        relay = Relay(folder.path / "relay", broker, suppliers.a)
        stack.callback(relay.close)
        sender = relay.enrolment.enrol("dc1")
        relay.prepare()
        stack.enter_context(short_tiers(broker))
        dice = random.Random(seed)
        plan = schedule(dice, cuts)
        report.progress(f"faults: seed {seed}, {cuts} cuts, {plan.deliveries // PER_SECOND} s of load")
        report.servers |= {"rabbitmq": broker.version, "directory": suppliers.a.version}
        result = Campaign(relay, suppliers, sender, settle=settle).run(plan, dice)
        for server, faults in result.stale.items():
            for fault in faults:
                report.fail("stale", server, fault)
        fields = {
            "seed": seed,
            "settle": settle,
            "faults": dict(Counter(plan.kinds)),
            **vars(result),
            "rerun": f"python -m tests.faults.cuts --cuts {cuts} --seed {seed}{'' if settle else ' --no-settle'}",
        }
        for name, value in fields.items():
            report[name] = value
        found = ", ".join(f"{len(faults)} at {server}" for server, faults in result.stale.items())
        report.say(f"{cuts} cuts, {result.users} users, {result.events} changes; stale: {found}")
        report.say(f"settling had to write {result.written_again} of them again" if settle else "without settling")


if __name__ == "__main__":
    typer.run(main)
