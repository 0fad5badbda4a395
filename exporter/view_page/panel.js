// Small pieces of the panel: sections, sliders, choices, switches. They know nothing of avatars.

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function section(title, open = true) {
  const made = element('details', { open }, element('summary', { textContent: title }));
  document.querySelector('#panel').append(made);
  return made;
}

// A row with a name, a range and its value. `input.reset()` brings it back to where it began.
export function slider(parent, { id, label, min = 0, max = 1, step = 0.01, value = 0, unit = '', onInput }) {
  const input = element('input', { type: 'range', id, min, max, step });
  const output = element('output');
  const show = () => (output.textContent = `${Number(input.value).toFixed(step < 1 ? 2 : 0)}${unit}`);
  input.value = value;
  input.addEventListener('input', () => {
    show();
    onInput(input.valueAsNumber);
  });
  input.reset = (to = value) => {
    input.value = to;
    show();
    onInput(input.valueAsNumber);
  };
  show();
  const name = element('span', { textContent: label, title: label });
  const row = element('label', { className: 'row' }, name, input, output);
  row.addEventListener('dblclick', () => input.reset());
  parent.append(row);
  return input;
}

// One of several: radio buttons that look like a bar. `choices`: [{value, label, disabled}].
export function choice(parent, name, choices, chosen, onChange) {
  const bar = element('div', { className: 'choices', role: 'radiogroup' });
  for (const { value, label, disabled = false } of choices) {
    const input = element('input', { type: 'radio', name, value, disabled, checked: value === chosen });
    input.addEventListener('change', () => onChange(value));
    bar.append(element('label', {}, input, label));
  }
  parent.append(bar);
}

// Each on or off. `choices`: [{value, label, checked, disabled}].
export function switches(parent, choices, onChange) {
  const bar = element('div', { className: 'choices' });
  for (const { value, label, checked = true, disabled = false } of choices) {
    const input = element('input', { type: 'checkbox', id: `switch-${value}`, checked, disabled });
    input.addEventListener('change', () => onChange(value, input.checked));
    bar.append(element('label', {}, input, label));
  }
  parent.append(bar);
}

export function caption(parent, text) {
  parent.append(element('p', { className: 'caption', textContent: text }));
}

export function buttons(parent, actions) {
  const bar = element('div', { className: 'choices' });
  for (const [label, onclick] of Object.entries(actions)) bar.append(element('button', { textContent: label, onclick }));
  parent.append(bar);
}

export function facts(parent, entries) {
  const list = element('dl');
  for (const [name, value] of entries) {
    list.append(element('dt', { textContent: name }), element('dd', { textContent: value }));
  }
  parent.replaceChildren(parent.firstChild, list);
}
