"use strict";
// What all parts of the page share: which models are shown, which choices are made. Parts listen to "page-change".
const page = {
  hidden: new Set(),
  choices: {},

  isShown(element) {
    const entry = element.dataset.entry;
    return (entry === undefined || !page.hidden.has(entry)) && page.isChosen(element);
  },

  isChosen(element) {
    const when = element.dataset.when;
    return !when || when.split(";").every((part) => {
      const [control, choice] = part.split("=");
      return page.choices[control] === choice;
    });
  },

  show(entries, shown) {
    for (const entry of entries) {
      if (shown) page.hidden.delete(entry);
      else page.hidden.add(entry);
    }
    page.change();
  },

  change() {
    for (const element of document.querySelectorAll("[data-when], figure[data-entry], details tr[data-entry]")) {
      element.hidden = !page.isShown(element);
    }
    for (const button of document.querySelectorAll("[data-toggle]")) {
      button.setAttribute("aria-pressed", String(!page.hidden.has(button.dataset.toggle)));
    }
    for (const box of document.querySelectorAll("[data-shown]")) box.checked = !page.hidden.has(box.dataset.shown);
    document.dispatchEvent(new Event("page-change"));
  },
};

function startChoices() {
  for (const select of document.querySelectorAll("select[data-control]")) {
    const control = select.dataset.control;
    page.choices[control] = select.options.length ? select.options[0].value : "";
    select.value = page.choices[control];
    select.addEventListener("change", () => {
      page.choices[control] = select.value;
      for (const other of document.querySelectorAll("select[data-control]")) {
        if (other.dataset.control === control) other.value = select.value;
      }
      page.change();
    });
  }
}

function startModels() {
  for (const button of document.querySelectorAll("[data-toggle]")) {
    button.addEventListener("click", () => {
      const entry = button.dataset.toggle;
      page.show([entry], page.hidden.has(entry));
    });
  }
  for (const box of document.querySelectorAll("[data-shown]")) {
    box.checked = true;
    box.addEventListener("change", () => page.show([box.dataset.shown], box.checked));
  }
  const everyone = [...new Set([...document.querySelectorAll("[data-toggle]")].map((b) => b.dataset.toggle))];
  for (const button of document.querySelectorAll("[data-all]")) {
    button.addEventListener("click", () => page.show(everyone, button.dataset.all === "true"));
  }
}

function startCopying() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      const said = document.getElementById("copied");
      try {
        await navigator.clipboard.writeText(source.textContent);
        said.textContent = "Copied.";
      } catch {
        getSelection().selectAllChildren(source); // no permission: one key is left to press
        source.focus();
        said.textContent = "Selected: press Ctrl+C (or Cmd+C) to copy.";
      }
    });
  }
}

function startPrinting() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
}

startChoices();
startModels();
startCopying();
startPrinting();
page.change();
