import { GuestAgent, Monitor } from 'lacuna/qmp';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Answer, returned, ScriptedPeer, type Sent } from '../../support/scripted-peer.js';

/** What an agent answers to everything; `before` is said first to a request to synchronize. */
function agentAnswer(answer: Answer, before: Uint8Array = new Uint8Array()): Answer {
  return (command, socket) => {
    if (command.execute !== 'guest-sync-delimited') return answer(command, socket);
    return Buffer.concat([before, Buffer.from([0xff]), Buffer.from(synced(command))]);
  };
}

function synced(command: Sent): string {
  return `${JSON.stringify({ return: command.arguments!.id })}\n`;
}

async function agentWith(answer: Answer, before?: Uint8Array) {
  const peer = await ScriptedPeer.start((socket, self) =>
    self.converse(socket, agentAnswer(answer, before)),
  );
  const agent = await GuestAgent.connect(peer.address, { timeoutMs: 60_000 });
  onTestFinished(() => agent.close());
  const asked = () => peer.commands.map(({ execute }) => execute);
  return { agent, peer, asked };
}

const answers =
  (values: Record<string, unknown>): Answer =>
  (command) => {
    const value = values[command.execute!];
    return value === undefined ? undefined : returned(command, value);
  };

describe('a guest agent', () => {
  test('freezes, tells so, and thaws', async () => {
    const { agent } = await agentWith(
      answers({
        'guest-fsfreeze-freeze': 3,
        'guest-fsfreeze-status': 'frozen',
        'guest-fsfreeze-thaw': 3,
        'guest-ping': {},
      }),
    );
    expect(await agent.freeze()).toBe(3);
    expect(await agent.status()).toBe('frozen');
    expect(await agent.thaw()).toBe(3);
    await agent.ping();
  });

  test('is heard from the delimiter on, whatever stands before it', async () => {
    const junk = Buffer.from('{"return":"frozen"}\n{"error":{}}{"half":[');
    const { agent } = await agentWith(answers({ 'guest-fsfreeze-status': 'thawed' }), junk);
    expect(await agent.status()).toBe('thawed');
  });

  test('is not taken at the answer to another client', async () => {
    const stale = Buffer.concat([Buffer.from([0xff]), Buffer.from('{"return":-5}\n')]);
    const { agent } = await agentWith(answers({ 'guest-fsfreeze-status': 'thawed' }), stale);
    expect(await agent.status()).toBe('thawed');
  });

  test('that never answers is absent, and that is known soon', async () => {
    const peer = await ScriptedPeer.start(() => {});
    const failure = await GuestAgent.connect(peer.address, { timeoutMs: 50 }).catch((e) => e);
    expect(failure).toMatchObject({ code: 'ERR_AGENT_ABSENT' });
    expect(failure.message).toContain('qemu-guest-agent');
  });

  test('that hangs up is absent', async () => {
    const peer = await ScriptedPeer.start((socket) => socket.end());
    await expect(GuestAgent.connect(peer.address)).rejects.toMatchObject({
      code: 'ERR_AGENT_ABSENT',
    });
  });

  test('whose port nobody has opened in the guest is not even connected', async () => {
    const agent = await ScriptedPeer.start(() => {});
    const { path } = agent.address;
    const chardev = { label: 'qga', filename: `disconnected:unix:${path},server=on` };
    const qemu = await ScriptedPeer.monitor((command) =>
      returned(command, [{ ...chardev, 'frontend-open': false }]),
    );
    await using monitor = await Monitor.connect(qemu.address);
    const failure = await GuestAgent.connect({ path }, { monitor }).catch((error) => error);
    expect(failure).toMatchObject({ code: 'ERR_AGENT_ABSENT' });
    expect(failure.message).toContain(
      'nobody in the guest has opened the port of the agent ("qga")',
    );
    expect(agent.connections).toBe(0);
  });

  test('that refuses tells why', async () => {
    const error = { class: 'CommandNotFound', desc: 'blocked' };
    const { agent, asked } = await agentWith(() => JSON.stringify({ error }));
    await expect(agent.freeze()).rejects.toMatchObject({
      code: 'ERR_QMP_COMMAND',
      errno: 'CommandNotFound',
      description: 'blocked',
    });
    expect(asked()).not.toContain('guest-fsfreeze-thaw');
  });

  test('is told to thaw when it does not say in time that it has frozen', async () => {
    const { agent, asked } = await agentWith(answers({ 'guest-fsfreeze-thaw': 1 }));
    await expect(agent.freeze({ timeoutMs: 30 })).rejects.toMatchObject({
      code: 'ERR_QMP_UNANSWERED',
    });
    expect(asked().slice(1)).toEqual([
      'guest-fsfreeze-freeze',
      'guest-sync-delimited',
      'guest-fsfreeze-thaw',
    ]);
  });

  test('is told to thaw when the caller gives up while it freezes', async () => {
    const { agent, asked } = await agentWith(answers({ 'guest-fsfreeze-thaw': 1 }));
    const signal = AbortSignal.timeout(30);
    await expect(agent.freeze({ signal, mountpoints: ['/'] })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
    expect(asked().at(-1)).toBe('guest-fsfreeze-thaw');
  });

  test('answers too late to a command, and the next one gets its own answer', async () => {
    const { agent, peer } = await agentWith((command) =>
      command.execute === 'slow' ? undefined : returned(command, command.execute),
    );
    await expect(agent.execute('slow', {}, { timeoutMs: 30 })).rejects.toThrow(/did not answer/);
    peer.say('{"return":"late"}\n');
    expect(await agent.execute('quick')).toBe('quick');
  });

  test('is asked one command at a time', async () => {
    let open = 0;
    const { agent } = await agentWith((command, socket) => {
      open++;
      setTimeout(() => {
        expect(open--).toBe(1);
        socket.write(returned(command, command.execute));
      }, 5);
      return undefined;
    });
    const names = ['a', 'b', 'c'];
    expect(await Promise.all(names.map((name) => agent.execute(name)))).toEqual(names);
  });

  test.each([
    ['an event', '{"event":"X"}\n'],
    ['what is no JSON', '{"return" 1}\n'],
    ['words', 'login: '],
  ])('that answers with %s may have done what it was asked', async (_, text) => {
    const { agent } = await agentWith(() => text);
    await expect(agent.ping()).rejects.toMatchObject({
      code: 'ERR_QMP_UNANSWERED',
      cause: { code: 'ERR_QMP_PROTOCOL' },
    });
    await expect(agent.ping()).rejects.toMatchObject({ device: agent.name });
  });

  test.each([
    ['guest-fsfreeze-status', 'half'],
    ['guest-fsfreeze-thaw', {}],
  ])('that answers %s with %j is not believed', async (command, value) => {
    const { agent } = await agentWith(answers({ [command]: value }));
    const asked = command.endsWith('status') ? agent.status() : agent.thaw();
    await expect(asked).rejects.toMatchObject({ code: 'ERR_QMP_PROTOCOL' });
  });
});
